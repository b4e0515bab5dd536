"""What `peso bench` measures: this package's engines beside the plain way, on the same examples, in one process."""
