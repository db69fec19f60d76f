"""Groups of rows that push the model the same way, found without any sentinel."""
