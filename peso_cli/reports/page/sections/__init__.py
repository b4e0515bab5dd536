"""One module for each section of the page: how to build it of a group of runs."""
