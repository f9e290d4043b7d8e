"""The parts of a module, captured with ``torch.export``."""
