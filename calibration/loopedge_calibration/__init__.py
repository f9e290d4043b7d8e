"""Calibration: data in, activation ranges out."""
