"""Portfolios: all models of a ledger together, and each model over its versions."""
