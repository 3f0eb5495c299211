"""Clips made to measure, on which a second look is known to help, or known not to."""
