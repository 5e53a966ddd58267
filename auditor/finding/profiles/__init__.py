"""Profiles that come with this tool: criteria by name. A convention of this tool, not law."""

DEFAULT_PROFILE = "auditor-default-3"
