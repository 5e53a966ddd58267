"""Files that determined an audit: audit.toml (found or given), criteria, rule packs, wording."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from auditor.core.files import LEFT_OUT, Closed
from auditor.judging.input_files import FileRole, ObeyedFile, Origin
from auditor.report.record import number_text
from auditor.report.record.translations import Catalogue

_LONGEST = 480


class ConfigurationFile(Closed):
    """A file that decided something of an audit.

    ``path``: as it was named; the name of what comes with the tool. ``origin``: ``found`` where the audit was started
    and named by nobody, ``given`` by whoever started it, or ``shipped`` with the tool. ``sha256``: hex, of the bytes
    that were obeyed. ``keys``: what a configuration decided, such as ``target`` or ``probes.robustness.noise``.
    """

    path: str
    role: FileRole
    origin: Origin
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    keys: Annotated[tuple[str, ...], LEFT_OUT] = ()

    def describe(self, say: Catalogue, digits: int = 64) -> str:
        """A description of the file: its role, its source, and ``digits`` of its digest."""
        return say.say(
            "obeyed.line",
            path=self.path,
            role=say.say(f"obeyed.{self.role.replace(' ', '_')}"),
            origin=say.say(f"obeyed.{self.origin}"),
            digest=f"SHA-256 {self.sha256[:digits]}",
        )

    def told_whole(self, say: Catalogue) -> str:
        """The description of the file, with its effect."""
        said = self.describe(say)
        keys = number_text.shortened(", ".join(self.keys), _LONGEST)
        return say.say("obeyed.decided", file=said, keys=keys) if keys else said


class ConfigurationRecord(Closed):
    """All files that determined an audit, without their contents."""

    files: tuple[ConfigurationFile, ...]


def recorded(files: Sequence[ObeyedFile]) -> ConfigurationRecord | None:
    """The record of the files; None if there were none."""
    if not files:
        return None
    return ConfigurationRecord(
        files=tuple(
            ConfigurationFile(path=f.path, role=f.role, origin=f.origin, sha256=f.sha256, keys=f.keys) for f in files
        )
    )
