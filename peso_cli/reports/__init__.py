"""Tables for people, made from files."""
