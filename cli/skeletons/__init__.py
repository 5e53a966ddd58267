"""Template files of ``auditor probes new``."""
