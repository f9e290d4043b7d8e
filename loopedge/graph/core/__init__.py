"""The looped core of a graph: viewed, built, unrolled, untied, looked into."""
