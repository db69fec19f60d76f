"""Models after training: whether a sentinel moved, and which rows are behind an answer."""
