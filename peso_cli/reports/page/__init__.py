"""One HTML page of finished runs that rests on no other file, and asks nothing of any network."""
