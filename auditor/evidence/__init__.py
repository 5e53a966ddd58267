"""Evidence that a stranger can check: what an audit was asked, answered and concluded, digested, chained and signed."""
