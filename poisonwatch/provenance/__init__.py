"""What travels with a release: descriptions of it in the formats that others read."""
