"""Inline SVG: one chart over two axes, bars and columns, and the units of their axes."""
