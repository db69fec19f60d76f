"""The method: rows to subsets' operators, operators to measurements, measurements to each row's
influence.
"""
