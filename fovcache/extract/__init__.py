"""Extractors: frozen functions from samples to named layers."""
