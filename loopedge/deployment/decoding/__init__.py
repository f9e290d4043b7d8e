"""What `loopedge.to_generate` stands on: the graph that it writes, and the checks of what that decodes."""
