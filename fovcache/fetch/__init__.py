"""Fetching over http and https: timeouts, retries, checks, a bounded working set, and no download of the unchanged."""
