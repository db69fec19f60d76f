"""Words, and what may be shown of them: hostile text made visible, secrets taken out."""
