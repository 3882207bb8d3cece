"""Exports a network to ONNX, checks that both agree, and chooses the weights."""
