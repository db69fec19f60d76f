"""Fire drills: known attacks among clean rows, and how many of them an audit finds."""
