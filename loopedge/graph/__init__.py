"""ONNX artifacts and passes over them (onnx_ir): ties, tables, folding, rewriting."""
