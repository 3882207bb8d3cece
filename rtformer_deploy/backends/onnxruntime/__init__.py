"""ONNX Runtime: the reference on every CPU; its plan is an ONNX file."""
