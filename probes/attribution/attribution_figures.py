"""Explanations as figures: their content, their size limits, and the data that they must not reveal.

A report goes to more people than the data do. Of a table's rows only attributions are drawn, each without its row, with
the rank of the feature's value and not the value. Texts and pictures are rows of the data themselves: they are drawn
where the caller says so, else words stand as a table of the whole (``global_importance``) and a map stands without its
picture.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray, IntArray
from auditor.judging import png
from auditor.judging.figure_types import (
    LONGEST_WORD,
    MOST_DOTS,
    MOST_HEATMAPS,
    MOST_PIXELS,
    MOST_SWARMS,
    MOST_TEXTS,
    MOST_WORDS,
    RANKS,
    ColouredText,
    Figure,
    GradeTable,
    Heatmap,
    Swarm,
)

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_TITLE = 160
# Places of a swarm's dots along its axis: a finer one would tell a value of the data to as many digits.
_STEPS = 200
_CLIPPED = 99.5
_NAMED_WORDS = 3
_THIRDS = (
    ("upper left", "upper middle", "upper right"),
    ("left", "middle", "right"),
    ("lower left", "lower middle", "lower right"),
)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _number(x: float) -> str:
    return f"{x:+.3g}".replace("-", "\N{MINUS SIGN}")


# ---- texts ---------------------------------------------------------------------------------------------------------


def text_figure(
    probe: str,
    method: str,
    words: Sequence[Sequence[str]],
    values: Sequence[Sequence[float]],
    titles: Sequence[str],
    *,
    output: str,
    spaced: bool = True,
    caption: str = "",
) -> Figure:
    """The first ``MOST_TEXTS`` texts with every word coloured by its contribution to ``output``.

    words, values: of each text, in order; a value that is not finite is not known. ``titles``: which text it is, such
    as ``row 17: scored 1.74``. ``spaced``: False for tokens that carry their own spaces. Long texts keep their first
    ``MOST_WORDS`` words. Whoever calls this has been told that the texts may be shown.
    """
    shown = tuple(
        ColouredText(
            words=tuple(_shorten(str(w), LONGEST_WORD) for w in own[:MOST_WORDS]),
            values=tuple(float(v) if np.isfinite(v) else None for v in numbers[:MOST_WORDS]),
            title=_shorten(title, _LONGEST_TITLE),
            spaced=spaced,
            left_out=max(0, len(own) - MOST_WORDS),
        )
        for own, numbers, title in zip(words[:MOST_TEXTS], values[:MOST_TEXTS], titles[:MOST_TEXTS], strict=True)
    )
    left_out = len(words) - len(shown)
    reading = (
        f"Contributions of words to {output} by {_words(method)}. Orange with a solid line speaks for it, blue with a "
        "dotted line against it; words in bold matter most, on one scale for all texts. Point at a word for its "
        "number, or open the table."
    )
    more = f" {left_out:,} more texts were explained and are not shown." if left_out > 0 else ""
    return Figure(
        id=f"{probe}/text/{method}",
        probe=probe,
        kind="text",
        title=f"What each word contributes, by {_words(method)}",
        series=(),
        alt=f"{len(shown)} texts. " + " ".join(_text_description(t) for t in shown),
        y_label=output,
        caption=" ".join(part for part in (reading + more, caption) if part),
        texts=shown,
    )


def _text_description(text: ColouredText) -> str:
    known = [(w.strip(), v) for w, v in zip(text.words, text.values, strict=True) if v]
    ranked = sorted(known, key=lambda pair: -abs(pair[1]))[:_NAMED_WORDS]
    named = ", ".join(f"“{word}” {_number(value)}" for word, value in ranked) or "no word"
    return f"{text.title or 'A text'}: most is contributed by {named}."


def _words(name: str) -> str:
    return name.replace("_", " ")


# ---- pictures ------------------------------------------------------------------------------------------------------


def heatmap_figure(
    probe: str,
    method: str,
    maps: Sequence[FloatArray],
    titles: Sequence[str],
    *,
    output: str,
    pictures: Sequence[npt.NDArray[np.uint8]] | None = None,
    smoothing: float = 0.0,
    caption: str = "",
) -> Figure:
    """The first ``MOST_HEATMAPS`` signed maps (height, width) of support for ``output``, over their images.

    ``pictures``: uint8 (height, width[, 1 or 3]) each, or None where they may not be shown. ``smoothing``: standard
    deviation of a Gaussian, as a share of the height, which a map per pixel needs before an eye can read it: 0.03.
    What speaks against is not drawn, and its share is
    said. The scale ends at the 99.5 % quantile, so that single pixels do not darken all others. Larger than
    ``MOST_PIXELS``: made smaller by averaging.
    """
    shown = []
    for i, (values, title) in enumerate(zip(maps[:MOST_HEATMAPS], titles[:MOST_HEATMAPS], strict=True)):
        picture = None if pictures is None else pictures[i]
        shown.append(_heatmap(values, picture, _shorten(title, _LONGEST_TITLE), smoothing))
    reading = (
        f"What speaks for {output} by {_words(method)}, from dark violet (nothing) to yellow (most); each map has its "
        "own scale, with its numbers beneath."
    )
    hidden = "" if pictures is not None else " The pictures are rows of the data and were not asked for."
    smooth = f" Smoothed with a Gaussian of {smoothing:.1%} of the height." if smoothing else ""
    left_out = f" {len(maps) - len(shown):,} more were explained and are not shown." if len(maps) > len(shown) else ""
    return Figure(
        id=f"{probe}/heatmap/{method}",
        probe=probe,
        kind="heatmap",
        title=f"Where in the picture it lies, by {_words(method)}",
        series=(),
        alt=f"{len(shown)} attribution maps. " + " ".join(f"{h.title}: {h.detail}" for h in shown),
        y_label="contribution per pixel",
        caption=" ".join(part for part in (reading + smooth + hidden + left_out, caption) if part),
        heatmaps=tuple(shown),
    )


def _heatmap(values: FloatArray, picture: npt.NDArray[np.uint8] | None, title: str, smoothing: float) -> Heatmap:
    signed = np.nan_to_num(np.asarray(values, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if smoothing:
        from scipy.ndimage import gaussian_filter

        signed = gaussian_filter(signed, sigma=smoothing * signed.shape[0], mode="nearest")
    signed = _shrink(signed)
    total = float(np.abs(signed).sum())
    positive = np.maximum(signed, 0.0)
    top = float(np.percentile(positive, _CLIPPED)) or float(positive.max())
    share = np.minimum(positive / top, 1.0) if top else positive
    against = float(-np.minimum(signed, 0.0).sum()) / total if total else 0.0
    return Heatmap(
        attribution=_encoded(np.round(255.0 * share).astype(np.uint8)),
        picture="" if picture is None else _encoded(_small_picture(picture, signed.shape)),
        low=0.0,
        high=top,
        title=title,
        detail=_location_text(positive, against),
    )


def _encoded(pixels: npt.NDArray[np.uint8]) -> str:
    return base64.b64encode(png.encode(pixels)).decode("ascii")


def _shrink(values: FloatArray) -> FloatArray:
    """(height, width[, channels]) averaged down to at most ``MOST_PIXELS`` on a side, in equal shares."""
    small = values
    for axis in (0, 1):
        n = small.shape[axis]
        if n > MOST_PIXELS:
            edges = np.linspace(0, n, MOST_PIXELS + 1).round().astype(int)
            sums = np.add.reduceat(small, edges[:-1], axis=axis)
            counts = np.diff(edges).reshape([-1 if a == axis else 1 for a in range(small.ndim)])
            small = sums / counts
    return small


def _small_picture(picture: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    a = picture[..., :3] if picture.ndim == 3 and picture.shape[2] >= 3 else picture.reshape(picture.shape[:2])
    small = np.round(_shrink(a.astype(np.float64))).astype(np.uint8)
    if small.shape[:2] != shape:
        raise ValueError(f"a picture of {small.shape[:2]} pixels does not belong to a map of {shape}")
    return small


def _location_text(positive: FloatArray, against: float) -> str:
    """Where a map's mass lies, for those who cannot see it."""
    total = float(positive.sum())
    if not total:
        return "Nothing in the picture speaks for it."
    height, width = positive.shape
    centre = [float((positive.sum(axis=1 - a) * np.arange(positive.shape[a])).sum()) / total for a in (0, 1)]
    place = _THIRDS[min(2, int(3 * centre[0] / height))][min(2, int(3 * centre[1] / width))]
    ordered = np.sort(positive.ravel())[::-1].cumsum()
    half = (int(np.searchsorted(ordered, total / 2.0)) + 1) / positive.size
    opposed = f" {against:.0%} of all contributions speak against it and are not drawn." if against >= 0.005 else ""
    return f"Half of what speaks for it lies in {half:.0%} of the picture, around the {place}.{opposed}"


# ---- grades --------------------------------------------------------------------------------------------------------


def grades_figure(probe: str, grades: GradeTable) -> Figure:
    """The tested methods with their grades, and those that passed the display rule."""
    said = []
    for method in grades.methods:
        numbers = ", ".join(
            f"{_words(name)} {'not measured' if g.value is None else _number(g.value)}"
            for name, g in zip(grades.grades, method.grades, strict=True)
        )
        said.append(f"{method.method}: {_words(method.standing)} ({numbers}).")
    return Figure(
        id=f"{probe}/table/methods",
        probe=probe,
        kind="table",
        title="Methods and their grades",
        series=(),
        alt=" ".join(said) or "No method was graded.",
        caption="An explanation is shown where it beats a random one with its whole interval, on rows that "
        "did not choose it, and passes the sanity checks.",
        table=grades,
    )


# ---- swarms --------------------------------------------------------------------------------------------------------


def beeswarm_figure(
    probe: str,
    method: str,
    names: Sequence[str],
    values: FloatArray,
    rows: pd.DataFrame | FloatArray,
    *,
    output: str,
    rng: np.random.Generator,
    caption: str = "",
) -> Figure:
    """The features with the largest mean absolute attribution as swarms of dots, as shap draws them.

    values (n, d): signed attributions; rows (n, d): the raw rows, of which only each value's rank among the n is told,
    to a fifth, where the column is numeric. At most ``MOST_DOTS`` rows, drawn anew for each feature and sorted by
    attribution, whose values are rounded to a 200th of the axis: no row can be put together from the dots.
    """
    known = np.nan_to_num(np.asarray(values, np.float64))
    means = np.abs(known).sum(axis=0) / max(len(known), 1)
    order = [int(j) for j in np.argsort(-means, kind="stable")[: MOST_SWARMS if len(known) else 0]]
    step = (float(np.ptp(known)) if known.size else 0.0) / _STEPS or 1.0
    swarms = []
    for j in order:
        chosen = rng.choice(len(known), size=min(MOST_DOTS, len(known)), replace=False)
        ranks = _fifths(rows, j)
        coarse = np.round(known[chosen, j] / step) * step
        # Sorted by both, so that ties do not keep the order in which rows were drawn.
        keys = np.full(len(known), -1) if ranks is None else ranks
        chosen, coarse = (a[np.lexsort((keys[chosen], coarse))] for a in (chosen, coarse))
        swarms.append(
            Swarm(
                feature=_shorten(names[j], _LONGEST_TITLE),
                values=tuple(float(v) for v in coarse),
                ranks=tuple(None if ranks is None or ranks[i] < 0 else int(ranks[i]) for i in chosen),
            )
        )
    rest = known.shape[1] - len(swarms)
    reading = (
        f"Each dot is a row's contribution to {output} by {_words(method)}; blue and pointing down where the row's "
        "value of the feature is among the lowest fifth, orange and pointing up among the highest, grey without order. "
        f"At most {MOST_DOTS} rows, others for each feature, and values themselves are not shown, since they are data."
    )
    largest = ", ".join(f"{names[j]} {means[j]:.3g}" for j in order)
    return Figure(
        id=f"{probe}/beeswarm/{method}",
        probe=probe,
        kind="beeswarm",
        title=f"Contributions of each feature, by {_words(method)}",
        series=(),
        alt=f"Mean absolute contributions, largest first: {largest or 'none'}.",
        x_label="feature",
        y_label=f"contribution to {output}",
        caption=" ".join(p for p in (reading + (f" The other {rest} contribute less." if rest else ""), caption) if p),
        swarms=tuple(swarms),
    )


def _fifths(rows: pd.DataFrame | FloatArray, j: int) -> IntArray | None:
    """(n,) 0 to 4 by the rank of a column's value, -1 where it is missing; None where the column has no order."""
    import pandas as pd

    column = rows.iloc[:, j] if isinstance(rows, pd.DataFrame) else pd.Series(np.asarray(rows)[:, j])
    if not pd.api.types.is_numeric_dtype(column.dtype):
        return None
    numbers = column.astype("float64")
    share = numbers.rank(method="average", pct=True).to_numpy()
    fifths = np.clip(np.floor(share * RANKS - 1e-9), 0, RANKS - 1)
    if numbers.nunique() == 2:
        fifths = np.where(numbers == numbers.max(), RANKS - 1, 0)
    return np.where(np.isnan(share), -1, fifths).astype(np.int64)
