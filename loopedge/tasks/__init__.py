"""What models are trained on: batches, scores, baselines, and a description of each task."""
