"""Readers of user files and generators of tasks, torch-free: shared by training and calibration."""
