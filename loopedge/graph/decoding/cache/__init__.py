"""The cache of a generate file: its slots, and the nodes that read and extend it."""
