"""What can be said of data before any training: a description, never a prediction."""
