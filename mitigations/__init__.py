"""The table of mitigations: each returns a new model and leaves the old one untouched."""

from auditor.mitigation import Mitigation

MITIGATIONS: dict[str, type[Mitigation]] = {}
