"""The audit history: an append-only ledger, and decisions about its entries."""
