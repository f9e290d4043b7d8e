"""CSV files: their table rows, what a cell means, and arrays of numbers."""
