"""Tasks whose data is generated: those of the paper, and a small one."""
