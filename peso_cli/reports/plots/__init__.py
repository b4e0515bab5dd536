"""One module for each plot of `peso plot`: what it NEEDS, and how to draw it of a group of runs."""
