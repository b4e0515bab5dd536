"""One module for each section of `peso analyse`: how to build its tables of the evidence."""
