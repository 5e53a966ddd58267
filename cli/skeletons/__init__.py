"""Template files of ``auditor new-probe``."""
