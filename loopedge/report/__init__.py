"""Tables for people and self-contained HTML pages."""
