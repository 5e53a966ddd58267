"""Tests of auditor/evidence/verify: what a stranger finds of a bundle that was bent."""
