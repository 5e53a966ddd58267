"""Many models: what a ledger says of all of them together, and of each over its versions."""
