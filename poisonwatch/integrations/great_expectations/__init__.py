"""Great Expectations: rows as a frame, the configured expectations as a suite, and its results."""
