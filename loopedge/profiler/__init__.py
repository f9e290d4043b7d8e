"""Measure deployed models: fresh child processes, ORT traces, untied twins."""
