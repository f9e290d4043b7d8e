"""A few forecasts of a pilot that the page may plot: what stands in one, and which are chosen."""
