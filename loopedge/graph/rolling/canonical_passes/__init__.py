"""The passes that `loopedge.graph.rolling.canonical` consists of, one to a file."""
