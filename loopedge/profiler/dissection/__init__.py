"""One more inference, taken apart: memory by source, time by operator."""
