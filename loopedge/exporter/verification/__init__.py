"""A written file against PyTorch."""
