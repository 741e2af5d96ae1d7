"""The scheduler on virtual time: hours of a run in seconds, beside simpler ways of sharing the same work."""
