"""Causal LMs whose vocabulary holds the semantic-ID tokens, and the prompts they read."""
