"""From runs to a verdict: what is chosen, what is claimed, how sure that is."""
