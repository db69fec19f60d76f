"""The gate for training code: `from poisonwatch.gate import require_cleared`."""

from poisonwatch.release.gate import require_cleared

__all__ = ["require_cleared"]
