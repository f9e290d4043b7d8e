"""The report of a pilot: for the terminal, and one self-contained HTML file."""
