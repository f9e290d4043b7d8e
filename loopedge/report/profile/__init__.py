"""The profile: as tables for the terminal, and as one page of HTML."""
