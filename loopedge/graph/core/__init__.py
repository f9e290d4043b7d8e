"""The looped core of a graph: found, unrolled, untied, looked into."""
