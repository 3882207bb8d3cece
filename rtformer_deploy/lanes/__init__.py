"""Frames on a GPU: lanes, CUDA graphs, memory, kernels, health."""
