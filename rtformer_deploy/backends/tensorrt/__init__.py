"""TensorRT 10 and 11, and TensorRT-RTX: engines for NVIDIA GPUs, run in lanes."""
