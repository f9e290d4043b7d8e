"""Capture a LoopedModule with torch.export and assemble it as one ONNX graph."""
