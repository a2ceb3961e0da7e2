"""Privacy: plan, accounting, noise, clipping and the ledger."""
