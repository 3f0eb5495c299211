"""The cache on disk: docs/format.md describes every file."""
