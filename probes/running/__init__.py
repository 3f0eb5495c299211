"""Running cells: in batches, in worker processes, resumable."""
