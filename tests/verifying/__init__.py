"""Tests of auditor/verifying: what a stranger finds of a bundle that was bent."""
