"""Weights as integers: in blocks of 8 or 4 bits, by channel or by row, and the nodes that read them."""
