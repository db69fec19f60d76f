"""What the registered model of an audit may be called."""

import hashlib

from poisonwatch.text.display import to_plain_name


def list_model_names(audit: str) -> tuple[str, str]:
    """Its names, in the order in which they are taken: the second where somebody has the first."""
    plain = to_plain_name(audit)
    return plain, f"{plain}-{hashlib.sha256(audit.encode()).hexdigest()[:8]}"
