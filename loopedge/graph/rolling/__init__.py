"""Give a graph that repeats itself its loop back."""
