"""Hybrids: a language model and a two-tower model of the same stage, whose lists are fused."""
