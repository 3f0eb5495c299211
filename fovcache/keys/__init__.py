"""What decides a feature, and the digests that it is known by."""
