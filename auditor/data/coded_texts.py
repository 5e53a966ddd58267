"""A column as the texts of its values, with each distinct value stored once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import BoolArray, IntArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class CodedTexts:
    """``names``: the different texts in the order in which rows show them; ``codes``: (n,) each row's among them."""

    names: tuple[str, ...]
    codes: IntArray

    def commonest(self, most: int, among: BoolArray | None = None) -> list[int]:
        """The most frequent texts by descending count, ties in order of first occurrence; of the rows ``among``."""
        codes = self.codes if among is None else self.codes[among]
        n = np.bincount(codes, minlength=len(self.names))
        if among is None:
            return [int(i) for i in np.argsort(-n, kind="stable")[:most]]
        first = np.full(len(self.names), len(codes))
        np.minimum.at(first, codes, np.arange(len(codes)))
        return [int(i) for i in np.lexsort((first, -n))[:most] if n[i]]


def texts_of(values: pd.Series[Any], missing: str) -> CodedTexts:
    """The texts of a column's values, ``missing`` for those that are absent."""
    import pandas as pd

    kind = values.dtype
    few = isinstance(kind, pd.CategoricalDtype) or (isinstance(kind, np.dtype) and kind.kind in "iufb")
    codes, different = pd.factorize(values if few else values.astype("string"))
    named = pd.Series(np.asarray(different)).astype("string") if len(different) else pd.Series([], dtype="string")
    names = [missing if absent else str(name) for name, absent in zip(named, named.isna(), strict=True)]
    if (codes < 0).any():
        codes = np.where(codes < 0, len(names), codes)
        names.append(missing)
    # Values that are not equal may be spelled alike, and a text may be the one that stands for none.
    spelled = list(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(spelled)}
    return _as_seen(spelled, np.asarray([place[name] for name in names], np.int64)[codes])


def _as_seen(names: list[str], codes: IntArray) -> CodedTexts:
    import pandas as pd

    ordered, seen = pd.factorize(codes)
    return CodedTexts(tuple(names[int(i)] for i in seen), ordered.astype(np.int64))
