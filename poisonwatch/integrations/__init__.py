"""Other people's platforms, a package each; nothing else in the library imports them."""
