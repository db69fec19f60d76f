"""The gate for training code: `from poisonwatch.gate import require_cleared`."""
