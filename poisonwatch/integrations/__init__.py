"""Other people's systems, a folder each: nothing else in the library imports them."""
