"""Train looped models."""
