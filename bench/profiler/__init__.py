"""Measuring where the time of a pipeline goes, what it could be, and what keeps it from that."""
