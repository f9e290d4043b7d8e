"""How what linears read is rounded, and what comes before: ranges, smoothing, gates."""
