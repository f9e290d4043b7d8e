"""The torch side: the LoopedModule contract, the reference transformer, checkpoints."""
