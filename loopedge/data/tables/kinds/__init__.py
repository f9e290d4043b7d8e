"""What reads a kind of file: CSV, Parquet, Arrow; each a chunk of table rows at a time."""
