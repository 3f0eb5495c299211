"""Serving cached features."""
