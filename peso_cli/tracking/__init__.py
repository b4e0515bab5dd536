"""Where a stage's curves, results and sample recommendations go: the run folder's log and W&B."""
