"""Runs of arms, seeds and tasks, each in a process of its own, judged together."""
