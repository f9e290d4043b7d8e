"""A core that is a Scan: what decodes with a cache hands each iteration its own rows of it."""
