"""``--bundle`` and ``--sign`` of the commands whose record is no audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.errors import UsageError
from cli.guarded import Writes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from auditor.evidence.derived import Derived
    from auditor.run.options import Configured

BundleTo = Annotated[
    Path | None,
    typer.Option("--bundle", help="Write the evidence, which auditor verify checks, to this file."),
    Writes(),
]
SignWith = Annotated[Path | None, typer.Option("--sign", help="Sign the evidence with this private key.")]


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """Where evidence goes, and the key that it is signed with."""

    bundle: Path
    key: Ed25519PrivateKey | None

    def write(self, made: Derived, own_code: Sequence[str] = ()) -> None:
        """Writes the bundle; ``own_code``: what of the user's own ran, as ``package.module:name``."""
        from auditor.evidence.derived import write_derived

        write_derived(self.bundle, replace(made, code=tuple(own_code)), key=self.key)


def sealed(bundle: Path | None, sign: Path | None) -> Sealed | None:
    """What the two flags ask for. Raises UsageError, before any work, where it cannot be done."""
    from auditor.evidence.derived import key_to_sign
    from auditor.files import check_writable

    key = key_to_sign(sign, bundle)
    if bundle is None:
        return None
    if bundle.is_dir():
        raise UsageError(f"--bundle {str(bundle)!r} is a folder: name a file, such as evidence.zip.")
    check_writable(bundle.parent, "Name another place with --bundle.")
    return Sealed(bundle=bundle, key=key)


def with_bundle(configured: Configured, bundle: Path | None) -> Configured:
    """The audits of a command that encloses them: each leaves its evidence there, unsigned, or none."""
    options = replace(
        configured.options,
        bundle=None if bundle is None else str(bundle),
        sign=None,
        redact=False,
        include_rows=False,
    )
    return replace(configured, options=options)
