"""The files that ``auditor new-probe`` fills in."""
