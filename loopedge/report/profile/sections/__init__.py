"""The sections of a profile's report; each returns the lines of its HTML, none where it has no data."""
