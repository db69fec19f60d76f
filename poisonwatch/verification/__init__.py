"""Whether the ledger is what its records say: recomputed, and each difference named."""
