"""The traditional recommenders, which rank items by vectors of users and items, and their continual strategies."""
