"""Network to ONNX, the check that both agree, and which weights are meant."""
