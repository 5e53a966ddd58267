"""Tests of auditor/evidence/portfolio: many audits in one view."""
