"""Searches: trials whose values rest on how earlier ones did on validation users, in place of a whole grid."""
