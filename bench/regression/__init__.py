"""Whether a change made something slower: benchmarks in many processes, compared by statistics."""
