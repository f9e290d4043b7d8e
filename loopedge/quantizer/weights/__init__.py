"""How weights and tables are stored as integers."""
