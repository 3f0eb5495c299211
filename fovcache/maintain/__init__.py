"""Looking after a cache: what it holds, whether it is whole, what can go."""
