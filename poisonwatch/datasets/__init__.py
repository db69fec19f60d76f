"""Data whose truth is known: the demo's rows, and synthetic ones for tests and benchmarks."""
