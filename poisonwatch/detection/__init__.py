"""From influence to flags: significance, topics, groups of flagged rows, and what steering with
them does.
"""
