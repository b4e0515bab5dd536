"""Residual quantizers: one file for each way to turn an embedding into codes."""
