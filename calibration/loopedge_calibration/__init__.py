"""Calibration: data in, ranges out."""

from loopedge_calibration.collector import collect

__all__ = ["collect"]
