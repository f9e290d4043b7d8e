"""What ``loopedge run`` does: arrays or text through a model."""
