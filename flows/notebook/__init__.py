"""Audits from Python: what `import poisonwatch as pw` offers beside the command line."""
