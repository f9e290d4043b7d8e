"""Every visible text of a pilot's page, a file per language: the same keys, the same placeholders."""
