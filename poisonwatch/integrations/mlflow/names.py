"""What the registered model of an audit may be called, and its review queue."""

import hashlib

from poisonwatch.text.display import to_plain_name

LONGEST_QUEUE_NAME = 250  # characters that MLflow keeps


def list_model_names(audit: str) -> tuple[str, str]:
    """Its names, in the order in which they are taken: the second where somebody has the first."""
    plain = to_plain_name(audit)
    return plain, f"{plain}-{hashlib.sha256(audit.encode()).hexdigest()[:8]}"


def make_queue_name(audit: str) -> str:
    """The name of its review queue."""
    return f"poisonwatch: {audit}".strip()[:LONGEST_QUEUE_NAME]
