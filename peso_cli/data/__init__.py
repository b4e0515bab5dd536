"""Stages, blocks, examples and their statistics."""
