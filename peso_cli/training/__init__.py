"""Packing, the training loop and its checkpoints."""
