"""Attention as graphs hold it, found and understood: what each reads, through which mask."""
