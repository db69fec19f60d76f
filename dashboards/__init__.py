"""The review dashboard: what people look at, and where they decide."""
