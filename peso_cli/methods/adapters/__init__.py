"""Adapters: how past factors enter the forward pass and how a stage begins. One file each; a YAML names the class."""
