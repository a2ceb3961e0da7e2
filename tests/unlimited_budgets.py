"""Budgets that only count, for tests of the ledger itself."""

import math

from common.ledger.ledger_budget import Cap, LedgerBudgets
from common.ledger.ledger_entry import PARTITIONS

UNLIMITED = LedgerBudgets(hospital={p: Cap(math.inf, 1e-5) for p in PARTITIONS})
