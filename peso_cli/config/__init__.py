"""Composing, checking and explaining a configuration."""
