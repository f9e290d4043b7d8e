"""The looped structures of the field, one small module each, under loopedge's contract."""
