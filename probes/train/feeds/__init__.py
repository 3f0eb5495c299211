"""Feeds: cached, online, streamed batches of a training run."""
