"""Embeddings of items: one file for each way to make them."""
