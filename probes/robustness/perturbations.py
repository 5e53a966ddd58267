"""Small changes to inputs that ought not to change a decision: noise, gaps and typing errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.rows import FloatArray

if TYPE_CHECKING:
    import pandas as pd

# The neighbours of each letter on a QWERTY keyboard.
NEIGHBOURS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "weadzx", "d": "ersfxc", "f": "rtdgcv", "g": "tyfhvb", "h": "yugjbn", "j": "uihknm",
    "k": "iojlm", "l": "opk", "z": "asx", "x": "sdzc", "c": "dfxv", "v": "fgcb", "b": "ghvn", "n": "hjbm", "m": "jkn",
}  # fmt: skip


# ---- tables --------------------------------------------------------------------------------------------------------


def numbers(values: pd.Series[Any]) -> FloatArray:
    """(n,) a numeric column as float64, NaN where missing."""
    return values.to_numpy(np.float64, na_value=np.nan)


def is_number(values: pd.Series[Any]) -> bool:
    """Whether a column holds numbers; truth values are none."""
    import pandas as pd

    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def with_noise(
    X: pd.DataFrame, names: Sequence[str], reference: pd.DataFrame, z: FloatArray, level: float
) -> pd.DataFrame:
    """``x + level * sd(column) * z`` in the named numeric columns, in the column's own type.

    X (n, d); z (n, len(names)) standard normal draws; ``reference``: rows whose standard deviation (of the finite
    values) is the unit. The result is kept within the reference's range, and is rounded in a column that holds whole
    numbers only: the model is asked about values that can occur. A negative income or 2.4 children would measure how it
    extrapolates, or crash on the logarithm before it, and not how it bears small errors. So a coded flag changes only
    where the noise reaches half a unit. Missing values stay missing.
    """
    out = X.copy()
    for j, name in enumerate(names):
        known = numbers(reference[name])
        known = known[np.isfinite(known)]
        if not known.size:
            continue
        noisy = np.clip(numbers(X[name]) + level * known.std() * z[:, j], known.min(), known.max())
        if (known == np.round(known)).all():
            noisy = np.round(noisy)
        out[name] = _typed(noisy, X[name])
    return out


def _typed(values: FloatArray, like: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers in the type of ``like``, which has the same gaps."""
    import pandas as pd

    column = pd.Series(values, index=like.index, name=like.name)
    if not isinstance(like.dtype, np.dtype):
        return column.astype("Float64").mask(like.isna()).astype(like.dtype)
    return column.astype(like.dtype)


def with_gaps(X: pd.DataFrame, u: FloatArray, rate: float) -> pd.DataFrame:
    """A cell is missing, by NaN or its type's own gap, where its draw ``u`` (n, d) of [0, 1) lies below ``rate``."""
    import pandas as pd

    out = {}
    for j, name in enumerate(X.columns):
        holes = u[:, j] < rate
        # A column without a gap keeps its type, as it would in a file.
        out[name] = X[name].mask(holes) if holes.any() else X[name]
    return pd.DataFrame(out, index=X.index)


# ---- texts ---------------------------------------------------------------------------------------------------------


def with_typos(text: str, counts: Sequence[int], rng: np.random.Generator) -> list[str]:
    """The text with each of ``counts`` (ascending) typing errors; fewer errors are the first of more.

    Each error strikes a letter drawn at random: it changes places with its neighbour in the word, is left out, is typed
    twice, or is the key next to it, each as likely. White space, digits and punctuation stay, and so does the number of
    words: a word of one letter does not lose it. A text without letters stays as it is.
    """
    versions, letters, done = [], list(text), 0
    for count in counts:
        for _ in range(count - done):
            _strike(letters, rng)
        done = count
        versions.append("".join(letters))
    return versions


def _strike(letters: list[str], rng: np.random.Generator) -> None:
    places = [i for i, c in enumerate(letters) if c.isalpha()]
    if not places:
        return
    i = places[int(rng.integers(len(places)))]
    kind, draw = int(rng.integers(4)), float(rng.random())
    neighbours = [j for j in (i + 1, i - 1) if 0 <= j < len(letters) and letters[j].isalpha()]
    if kind == 0 and neighbours:
        j = neighbours[0]
        letters[i], letters[j] = letters[j], letters[i]
    elif kind == 1 and neighbours:
        del letters[i]
    elif kind == 2 or letters[i].lower() not in NEIGHBOURS:
        letters.insert(i, letters[i])
    else:
        keys = NEIGHBOURS[letters[i].lower()]
        key = keys[int(draw * len(keys))]
        letters[i] = key.upper() if letters[i].isupper() else key


# ---- images --------------------------------------------------------------------------------------------------------


def image_noise(X: npt.NDArray[np.uint8], z: npt.NDArray[np.float32], level: float) -> npt.NDArray[np.uint8]:
    """``x + level * 255 * z`` per channel of each pixel, rounded and kept within [0, 255]; X, z (n, h, w, c)."""
    return np.clip(np.round(X + np.float32(255.0 * level) * z), 0, 255).astype(np.uint8)


def sound_noise(X: npt.NDArray[np.int16], z: npt.NDArray[np.float32], level: float) -> npt.NDArray[np.int16]:
    """``x + level * rms(x) * z`` of each recording, rounded and kept within 16 bits; X, z (n, samples).

    A level of 0.1 is a signal-to-noise ratio of 20 dB.
    """
    loud = np.sqrt(np.mean(np.square(X.astype(np.float32)), axis=1, keepdims=True))
    return np.asarray(np.clip(np.round(X + np.float32(level) * loud * z), -32768, 32767), np.int16)
