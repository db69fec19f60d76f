"""Kinds of arrays, by what their numbers are; shapes stand where they are used."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Features = NDArray[np.float32]
Integers = NDArray[np.int64]
RowIndices = NDArray[np.int64]  # places of rows
