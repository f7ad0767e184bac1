"""Days of the past: planned, made, compared."""
