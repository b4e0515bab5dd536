"""One module for each table of `peso tables`: what it NEEDS, and how to build it of a group of runs."""
