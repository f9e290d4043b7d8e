"""What a profile measures: models, twins, variants, their inputs."""
