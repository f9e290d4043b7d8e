"""Measure a quantized file on samples that did not calibrate it."""
