"""What writing Loops out stands on: counts that are known before, copies of a body, entries of stacks."""
