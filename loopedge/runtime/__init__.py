"""Run a model: numpy and ONNX Runtime alone."""
