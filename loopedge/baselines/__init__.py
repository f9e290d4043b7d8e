"""What needs no network: plain baselines of a task, fitted on its training part and scored sample by sample."""
