"""Constrained beam search over semantic IDs."""
