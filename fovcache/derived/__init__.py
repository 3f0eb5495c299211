"""Derived features: representations computed from cached layers, one row for each sample's tokens × channels matrix."""
