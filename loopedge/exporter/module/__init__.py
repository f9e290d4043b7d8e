"""What is exported: found, opened, described."""
