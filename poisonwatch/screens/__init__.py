"""Text that gives itself away before any model looks at it: one file a screen, named like the
setting.
"""
