"""Identities in files: face or voice vectors by a user's embedder, and persons shared by two sets of files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, NotApplicableError, first_line
from auditor.core.rows import FloatArray, IntArray

if TYPE_CHECKING:
    from auditor.core.rows import Rows

Vectors = npt.NDArray[np.float32]
_ROWS_AT_ONCE = 64
# Files by which the embedder itself is tried.
_MOST_TRIED = 100
_RECOGNISED, _CONFUSED = 0.9, 0.5


@dataclass(frozen=True)
class Likeness:
    """Identities shared by evaluation and training files, by an embedder, and the embedder's quality.

    ``twin`` (n,): the training file most like each in who it is of, -1 for none. ``weak``: why finding nothing says
    little, or "". ``undefined``: why nothing can be said at all, or "".
    """

    twin: IntArray
    detail: str
    weak: str = ""
    undefined: str = ""


def shared_people(rows: Rows, others: Rows, embedder: str, least: float | None) -> Likeness:
    """The ones of n files that share a person with one of m other files: cosine similarity at least ``least``.

    ``embedder``: ``package.module:function`` of the user's own, given rows of images (n, height, width, channels) uint8
    or sound (n, samples) int16, that returns vectors (n, d); or an encoder of images as detectors take it. ``least``:
    the cosine from which two vectors are of one person, by the embedder's own account; None means the function's
    attribute ``same_identity``. The embedder is tried on the other files: it is to recognise each of them mirrored and
    cropped, or by its second half where it is sound, and not to take half of all pairs for one person. Raises
    NotApplicableError where the cosine is not known, DataError for what are no vectors.
    """
    embed, known = _embedder(embedder)
    at = known if least is None else least
    if at is None:
        raise NotApplicableError(
            "Needs the cosine from which two vectors of the embedder are of one person, as those who made it say: add "
            "--set source_leakage.same_identity=0.5, or whatever it is."
        )
    mine, theirs = _vectors(embed, np.asarray(rows)), _vectors(embed, np.asarray(others))
    alike = mine @ theirs.T
    best = alike.argmax(axis=1)
    twin = np.where(alike[np.arange(len(best)), best] >= at, best, -1).astype(np.int64)
    tried = np.asarray(others)[:_MOST_TRIED]
    again = _vectors(embed, _otherwise(tried))
    recognised = float((np.einsum("nd,nd->n", theirs[: len(tried)], again) >= at).mean())
    pairs = (theirs[: len(tried)] @ theirs[: len(tried)].T)[np.triu_indices(len(tried), 1)]
    confused = float((pairs >= at).mean()) if pairs.size else 0.0
    how = "mirrored and cropped" if np.asarray(others).ndim == 4 else "by their second half"
    said = f"cosine of at least {at:g} by {embedder}, which recognises {recognised:.0%} of training files {how}"
    if confused > _CONFUSED:
        why = f"{embedder} takes {confused:.0%} of all pairs of training files for one person at a cosine of {at:g}"
        return Likeness(twin, said, undefined=why)
    weak = ""
    if recognised < _RECOGNISED:
        weak = f"{said}: who it does not recognise there it will not recognise elsewhere."
    return Likeness(twin, said, weak=weak)


def _embedder(spec: str) -> tuple[Callable[[npt.NDArray[Any]], Any], float | None]:
    if ":" in spec:
        from auditor.loading.user_code import import_object

        function = import_object(spec, None, "--embedder")
        known = getattr(function, "same_identity", None)
        return function, None if known is None else float(known)
    from auditor.loading.auxiliary_models import read_encoder

    file = read_encoder(spec)

    def encode(rows: npt.NDArray[Any]) -> FloatArray:
        import torch

        from auditor.data.images_and_video import fitted_picture
        from auditor.data.preprocessing import ImagePreprocessing

        if rows.ndim != 4:
            raise DataError("An encoder's file is of images: name a function of your own for sound.")
        wanted = file.preprocessing
        assert isinstance(wanted, ImagePreprocessing)
        fitted = wanted.encode(np.stack([fitted_picture(row, wanted) for row in rows]))
        with torch.inference_mode():
            return np.asarray(file.encoder(torch.from_numpy(fitted)).numpy(), np.float64)

    return encode, None


def _vectors(embed: Callable[[npt.NDArray[Any]], Any], rows: npt.NDArray[Any]) -> Vectors:
    """(n, d) of length 1."""
    parts = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        try:
            found = np.asarray(embed(some), np.float64)
        except DataError:
            raise
        except Exception as error:  # the user's function may raise anything
            raise DataError(f"--embedder raised {type(error).__name__}: {first_line(error)}.") from error
        if found.ndim != 2 or len(found) != len(some) or not np.isfinite(found).all():
            raise DataError(
                f"--embedder gave {found.shape} for {len(some)} files: it is to give one vector of finite numbers each."
            )
        parts.append(found)
    whole = np.concatenate(parts)
    length = np.linalg.norm(whole, axis=1, keepdims=True)
    return np.asarray(np.divide(whole, length, out=np.zeros_like(whole), where=length > 1e-12), np.float32)


def _otherwise(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same people otherwise: pictures mirrored and less a sixteenth, of sound its second half alone."""
    if rows.ndim == 4:
        # Mirrored alone, whatever sums up all pixels would know them again.
        by = max(1, rows.shape[1] // 16)
        return np.pad(rows[:, by:, ::-1][:, :, by:], ((0, 0), (0, by), (0, by), (0, 0)), mode="edge")
    half = rows.shape[1] // 2
    return np.stack([np.resize(row[half:], row.size) for row in rows])
