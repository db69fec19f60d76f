"""An interrupted audit goes on where it stopped: what its stages came to, and how far its passes
had come.
"""
