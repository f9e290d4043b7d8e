"""The schemes of quantization: static, dynamic, weights alone."""
