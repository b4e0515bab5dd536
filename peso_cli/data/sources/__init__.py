"""Readers of raw interactions: one file for each layout, all with the same columns in the end."""
