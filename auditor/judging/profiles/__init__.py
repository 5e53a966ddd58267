"""Criteria profiles shipped with this tool, by name.

A convention of this tool, not law.
"""

DEFAULT_PROFILE = "auditor-default-3"
