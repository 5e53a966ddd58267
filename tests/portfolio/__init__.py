"""Tests of auditor/portfolio: many audits in one view."""
