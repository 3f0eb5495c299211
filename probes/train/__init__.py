"""Controlled training of models against the cache: counted in samples, resumable to the bit, judged by its arms."""
