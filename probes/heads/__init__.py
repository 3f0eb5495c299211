"""Heads: what is fitted on frozen features."""
