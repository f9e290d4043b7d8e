"""What a decoding graph computes in many nodes, in few: one token is so little work that each node counts."""
