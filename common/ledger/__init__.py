"""Privacy ledger of a hospital: entries, file, budget, state and independent recomposition."""
