"""Criteria profiles shipped with this tool, by name.

A convention of this tool, not law.
"""

DEFAULT_PROFILE = "auditor-default-3"
# What rows are held to before there is a model.
DATA_PROFILE = "auditor-data-1"
