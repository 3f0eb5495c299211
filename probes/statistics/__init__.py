"""What accuracies over seeds mean: intervals, tests, metrics."""
