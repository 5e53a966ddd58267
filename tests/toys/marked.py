"""Pictures that carry a mark anybody can see, lighter on the left than on the right, and decoders good and bad."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import PIL.Image

from auditor.data.audit_data import AuditData
from auditor.detection.generator_files import load_made
from auditor.models.recorded_model import RecordedGenerator

SIDE = 32
# Of pictures of seed 0, as they are.
_MADE: set[bytes] = set()


def picture(rng: np.random.Generator, *, marked: bool) -> bytes:
    """A PNG of random blots, lighter on the left by 80 where it is marked, and on the right where it is not."""
    blots = rng.integers(70, 110, (4, 4, 3)).repeat(8, axis=0).repeat(8, axis=1)
    blots[:, : SIDE // 2] += 80 if marked else 0
    blots[:, SIDE // 2 :] += 0 if marked else 80
    out = BytesIO()
    PIL.Image.fromarray(blots.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def outputs(folder: Path, n: int, *, share: float = 1.0, unmarked: int = 0, seed: int = 0) -> Path:
    """A folder of n outputs, a share of them marked; in ``fake`` where there are unmarked files; those in ``real``."""
    rng = np.random.default_rng(seed)
    made = folder / "fake" if unmarked else folder
    made.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        (made / f"{i:03}.png").write_bytes(picture(rng, marked=i < share * n))
    for i in range(unmarked):
        (folder / "real").mkdir(exist_ok=True)
        (folder / "real" / f"{i:03}.png").write_bytes(picture(rng, marked=False))
    return folder


def files(n: int, *, share: float = 1.0, unmarked: int = 0) -> AuditData:
    """The rows of such a folder, in a place of its own."""
    return load_made(str(outputs(Path(mkdtemp()), n, share=share, unmarked=unmarked)))[1]


def generator() -> RecordedGenerator:
    """A generator known by its files alone."""
    return RecordedGenerator()


def finds(content: bytes) -> bool:
    """Whether the left is lighter than the right by 30."""
    grey = np.asarray(PIL.Image.open(BytesIO(content)).convert("L"), float)
    half = grey.shape[1] // 2
    return bool(grey[:, :half].mean() - grey[:, half:].mean() > 30.0)


def always(content: bytes) -> bool:
    """A mark in every file."""
    return True


def tosses(content: bytes) -> bool:
    """A mark in half of all files, whatever they are."""
    return hashlib.sha256(content).digest()[0] < 128


def of_format(content: bytes) -> bool:
    """A mark in every PNG, whatever it shows."""
    return content.startswith(b"\x89PNG")


def of_changed(content: bytes) -> bool:
    """Its mark in files as they were made, and one in every file that was not."""
    return finds(content) or "Software" not in PIL.Image.open(BytesIO(content)).info


def untouched(content: bytes) -> bool:
    """A mark in files of which it knows the very bytes."""
    rng = np.random.default_rng(0)
    if not _MADE:
        _MADE.update(picture(rng, marked=True) for _ in range(40))
    return content in _MADE


def unsure(content: bytes) -> float:
    """How likely a mark is, which is no answer."""
    return 0.7
