"""An interpreter of its own to install things into, so that nothing a test installs is seen by another test."""

from __future__ import annotations

import sysconfig
import venv
from pathlib import Path

from tests import ROOT


def interpreter(where: Path) -> tuple[Path, Path]:
    """A python that has everything this one has, and the folder that its own packages lie in."""
    venv.create(where / "venv", symlinks=True)
    (packages,) = where.glob("venv/lib/python*/site-packages")
    ours = sysconfig.get_paths()["purelib"]
    # A folder that is added so has its own .pth files read: those of an editable installation of this toolkit.
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n{ROOT}\n")
    return where / "venv/bin/python", packages
