"""Memories: which data a stage trains on. One file each; a YAML names the class."""
