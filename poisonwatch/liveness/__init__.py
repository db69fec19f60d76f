"""Whether audits come when they are expected, and what else needs a person."""
