"""Named models and data sets that are brought once into a cache, and their checksums."""
