"""Regularizers: what ties the current factors to their anchors. One file each; a YAML names the class."""
