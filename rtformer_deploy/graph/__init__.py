"""Graph passes, one per file: an onnx_ir.Model in, an onnx_ir.Model out."""
