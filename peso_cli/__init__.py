"""Run continual-learning experiments with LLM-based generative recommenders."""

__version__ = "0.1.0"
