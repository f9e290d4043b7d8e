"""Conversations as a model was trained on them: chat templates, and ids in which a user's text stays text."""
