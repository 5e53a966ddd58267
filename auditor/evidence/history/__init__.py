"""The history of audits: a ledger that grows at its end and nowhere else, and decisions about what stands in it."""
