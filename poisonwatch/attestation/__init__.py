"""What was found and decided, as statements in the in-toto format, and who signs them."""
