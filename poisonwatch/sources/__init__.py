"""Rows in: one file a kind of source, and the formats that rows may have."""
