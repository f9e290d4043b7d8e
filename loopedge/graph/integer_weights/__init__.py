"""Weights as integers: in blocks of 8, 4 or 2 bits, by channel or by row, and the nodes that read them."""
