"""``--bundle`` and ``--sign`` of the commands whose record is no audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from auditor.evidence.derived import Derived
    from auditor.run.options import Configured


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Where evidence goes, the key that it is signed with, and the URL of who says when it was there."""

    bundle: Path
    key: Ed25519PrivateKey | None
    timestamp: str | None = None
    _undated: list[UsageError] = field(default_factory=list)

    def write(self, made: Derived, own_code: Sequence[str] = ()) -> None:
        """Writes the bundle; ``own_code``: what of the user's own ran, as ``package.module:name``."""
        from auditor.evidence.derived import write_derived
        from auditor.evidence.timestamp import NoTimestampError

        try:
            write_derived(self.bundle, replace(made, code=tuple(own_code)), key=self.key, timestamp=self.timestamp)
        except NoTimestampError as error:
            # The bundle is written, and the verdict is still to be told.
            self._undated.append(error)

    def told(self) -> None:
        """Raises NoTimestampError, when all else is told, where the bundle has not the timestamp asked for."""
        for error in self._undated:
            raise error


def sealed(bundle: Path | None, sign: Path | None, timestamp: str | None) -> Sealed | None:
    """What the three flags ask for. Raises UsageError, before any work, where it cannot be done."""
    from auditor.evidence.derived import key_to_sign
    from auditor.files import check_writable

    key = key_to_sign(sign, bundle)
    if timestamp is not None:
        from auditor.evidence.timestamp import check_authority

        check_authority(timestamp)
    if bundle is None:
        if timestamp is not None:
            raise UsageError("--timestamp says something about the evidence bundle: add --bundle FILE.")
        return None
    if bundle.is_dir():
        raise UsageError(f"--bundle {str(bundle)!r} is a folder: name a file, such as evidence.zip.")
    check_writable(bundle.parent, "Name another place with --bundle.")
    return Sealed(bundle=bundle, key=key, timestamp=timestamp)


def with_bundle(configured: Configured, bundle: Path | None) -> Configured:
    """The audits of a command that encloses them: each leaves its evidence there, unsigned, or none."""
    options = replace(
        configured.options,
        bundle=None if bundle is None else str(bundle),
        sign=None,
        timestamp=None,
        redact=False,
        include_rows=False,
    )
    return replace(configured, options=options)
