"""Template files of ``auditor probes new`` and ``auditor mitigate new``."""
