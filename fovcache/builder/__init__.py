"""Computing what a cache lacks."""
