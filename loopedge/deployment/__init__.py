"""An artifact made ready for a device: ORT format, packed weights."""
