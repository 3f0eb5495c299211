"""Results as tables and pages of text."""
