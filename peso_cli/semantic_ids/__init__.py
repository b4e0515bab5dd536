"""The catalog of items, their semantic IDs and the trie over them."""
