"""From sums over subsets back to single rows: y = M w + noise. NumPy and SciPy only."""
