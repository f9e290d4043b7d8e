"""What `loopedge.Generator` stands on: the file, the buffers of its cache, and which token comes next."""
