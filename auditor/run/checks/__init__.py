"""Contract tests for probes and mitigations, of this toolkit and of other distributions."""
