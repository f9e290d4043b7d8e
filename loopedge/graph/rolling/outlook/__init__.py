"""What the stored weights of a graph say of its loops before anything is rolled: `loopedge inspect` shows it."""
