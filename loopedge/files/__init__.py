"""What is read and written: paths, targets, staging, arrays, JSON; bad input ends in one line."""
