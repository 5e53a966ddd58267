"""Small changes to inputs that ought not to change a decision: noise, gaps, typing errors, and the worst of a ball."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.rows import FloatArray, IntArray
from probes.inputs import differentiating, rows_at_once

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from auditor.model.torch_model import DifferentiableModel

BoolArray = npt.NDArray[np.bool_]
# The neighbours of each letter on a QWERTY keyboard.
NEIGHBOURS = {
    "q": "wa", "w": "qeas", "e": "wrsd", "r": "etdf", "t": "ryfg", "y": "tugh", "u": "yihj", "i": "uojk", "o": "ipkl",
    "p": "ol", "a": "qwsz", "s": "weadzx", "d": "ersfxc", "f": "rtdgcv", "g": "tyfhvb", "h": "yugjbn", "j": "uihknm",
    "k": "iojlm", "l": "opk", "z": "asx", "x": "sdzc", "c": "dfxv", "v": "fgcb", "b": "ghvn", "n": "hjbm", "m": "jkn",
}  # fmt: skip
# Steps together reach two and a half times the radius: from any start in the ball to any point of it.
_REACH = 2.5


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


# ---- the worst case ------------------------------------------------------------------------------------------------


def pgd_flips(
    model: DifferentiableModel,
    inputs: Tensor,
    clean: IntArray,
    decide: Callable[[FloatArray], IntArray],
    *,
    radius: Tensor,
    levels: Sequence[float],
    n_steps: int,
    limits: tuple[Tensor, Tensor] | None,
    rng: np.random.Generator,
) -> BoolArray:
    """(n_levels, n) whether projected gradient descent finds another decision within ``level * radius`` of each input.

    inputs (n, ...) floating point; clean (n,) what is decided on them; radius (...) or (n, ...), 0 where an input may
    not be touched; levels ascending; ``limits``: lowest and highest allowed inputs, broadcast. ``decide``: (m, k)
    probabilities to (m,) classes. From a start drawn uniformly in the ball, ``n_steps`` steps of
    ``2.5 level radius / n_steps`` along the sign of the gradient of ``z_c - max over j != c of z_j``, c being the clean
    decision and z the logits, each brought back into the ball. An input counts as flipped if any point on the way is,
    and stays flipped at larger levels, whose balls hold the smaller ones, so robustness never rises with the level.
    captum.robust.PGD keeps the last point only and draws from torch's global generator, and so is not used.

    Sources: Madry et al., ICLR 2018; the margin as loss: Carlini and Wagner, IEEE S&P 2017.
    """
    import torch

    start = torch.from_numpy(rng.random(inputs.shape, dtype=np.float32)).to(inputs) * 2.0 - 1.0
    flipped = np.zeros((len(levels), len(inputs)), np.bool_)
    with differentiating(model):
        for i, level in enumerate(levels):
            if i:
                flipped[i] = flipped[i - 1]
            reach = (level * radius).expand_as(inputs)
            low, high = inputs - reach, inputs + reach
            if limits is not None:
                low, high = torch.maximum(low, limits[0]), torch.minimum(high, limits[1])
            for rows in _slices(inputs):
                at = np.arange(len(inputs))[rows]
                at = at[~flipped[i, at]]
                if at.size:
                    index = torch.from_numpy(at).to(inputs.device)
                    found = _descend(
                        model,
                        torch.clamp(inputs[index] + start[index] * reach[index], low[index], high[index]),
                        low[index],
                        high[index],
                        reach[index] * (_REACH / n_steps),
                        clean[at],
                        decide,
                        n_steps,
                    )
                    flipped[i, at] = found
    return flipped


def _descend(
    model: DifferentiableModel,
    points: Tensor,
    low: Tensor,
    high: Tensor,
    step: Tensor,
    clean: IntArray,
    decide: Callable[[FloatArray], IntArray],
    n_steps: int,
) -> BoolArray:
    """(m,) whether any point on the way from ``points`` (m, ...) is decided otherwise than ``clean`` (m,)."""
    import torch

    flipped = np.zeros(len(clean), np.bool_)
    active = np.arange(len(clean))
    for k in range(n_steps + 1):
        points = points.detach().requires_grad_()
        logits = model.logits(points)
        changed = decide(torch.softmax(logits.detach().double(), dim=1).cpu().numpy()) != clean[active]
        flipped[active[changed]] = True
        if k == n_steps or changed.all():
            break
        classes = torch.from_numpy(clean[active]).to(points.device).unsqueeze(1)
        margin = logits.gather(1, classes).squeeze(1) - logits.scatter(1, classes, -torch.inf).amax(dim=1)
        (gradient,) = torch.autograd.grad(margin.sum(), points)
        moved = torch.clamp(points.detach() - step * gradient.sign(), low, high)
        kept = torch.from_numpy(~changed).to(points.device)
        points, low, high, step = moved[kept], low[kept], high[kept], step[kept]
        active = active[~changed]
    return flipped


def _slices(inputs: Tensor) -> Iterator[slice]:
    size = rows_at_once(inputs)
    for i in range(0, len(inputs), size):
        yield slice(i, i + size)
