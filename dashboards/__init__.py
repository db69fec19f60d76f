"""Templates of the documents that people read; found by folder, never imported for code."""
