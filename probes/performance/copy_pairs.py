"""Copies of training rows side by side: in what they differ, masked where that may tell who somebody is."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from auditor.core.rows import IntArray
from auditor.judging.figure_types import LONGEST_WORD, ColouredText, Figure
from auditor.report.record.number_text import shortened
from probes.performance.row_copies import MEANING
from probes.privacy.personal_data import hidden_text, special_columns

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData

_MOST_PAIRS, _MOST_TRIED, _MOST_COLUMNS, _MOST_WORDS = 3, 200, 8, 24
# Texts of which most rows have their own name somebody.
_OWN_TEXTS = 0.5


def pairs_figure(pairs: Mapping[str, IntArray], rows: AuditData) -> Figure | None:
    """Some pairs of each kind of copies, those that differ first; None where there are none to be shown.

    ``pairs``: (n, 2) positions of two rows that are copies, by kind.
    """
    texts: list[ColouredText] = []
    describe = _of_table if rows.modality == "tabular" else _of_texts if rows.modality == "text" else None
    if describe is None:
        return None
    for kind in sorted(pairs, key=lambda kind: kind == "exact"):
        for first, second in pairs[kind][:_MOST_TRIED].tolist():
            if len(texts) >= 2 * _MOST_PAIRS:
                break
            alike, words = describe(rows, first, second)
            if not words[0] and kind != "exact":
                continue
            for place, own in zip((first, second), words, strict=True):
                title = f"row {place + 1:,}, {kind}: {alike}"
                told = tuple(shortened(word, LONGEST_WORD) for word in own)
                texts.append(ColouredText(words=told, values=(None,) * len(told), title=title))
    if not texts:
        return None
    in_words = " ".join(f"{text.title} {' '.join(text.words)}." for text in texts)
    return Figure(
        id="data_leakage/copies",
        probe="data_leakage",
        kind="text",
        title="Copies of training rows, two by two",
        series=(),
        alt=in_words,
        caption="Only what differs is shown; what may tell who somebody is, is masked. Rows are counted from one, "
        "without the header of the file. " + "; ".join(f"{kind}: {MEANING[kind]}" for kind in pairs) + ".",
        texts=tuple(texts),
    )


def _of_table(rows: AuditData, first: int, second: int) -> tuple[str, tuple[list[str], list[str]]]:
    import pandas as pd

    table = rows.X if isinstance(rows.X, pd.DataFrame) else pd.DataFrame(rows.X).add_prefix("x")
    one, other = table.iloc[first], table.iloc[second]
    apart = [name for name in table.columns if not _same(one[name], other[name])]
    special = special_columns(rows)
    words: tuple[list[str], list[str]] = ([], [])
    for name in apart[:_MOST_COLUMNS]:
        column = table[name]
        own = column.dtype.kind not in "biufcmM" and column.nunique() > _OWN_TEXTS * len(column)
        for told, value in zip(words, (one[name], other[name]), strict=True):
            missing = pd.isna(value)
            text = "missing" if missing else hidden_text(str(name), str(value), whole=own or str(name) in special)
            told.append(f"{name} = {text}")
    return f"alike in {len(table.columns) - len(apart):,} of {len(table.columns):,} columns", words


def _same(one: Any, other: Any) -> bool:
    import pandas as pd

    missing = pd.isna(one), pd.isna(other)
    return all(missing) if any(missing) else bool(one == other)


def _of_texts(rows: AuditData, first: int, second: int) -> tuple[str, tuple[list[str], list[str]]]:
    """The runs of words in which two texts differ."""
    one, other = (hidden_text("text", str(rows.X[i]), whole=False).split() for i in (first, second))
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    words: tuple[list[str], list[str]] = ([], [])
    for kind, low, high, from_, to in matcher.get_opcodes():
        if kind != "equal":
            words[0].extend(one[low:high] or ["…"])
            words[1].extend(other[from_:to] or ["…"])
    shared = sum(block.size for block in matcher.get_matching_blocks())
    return f"{shared:,} of {max(len(one), len(other)):,} words alike", (words[0][:_MOST_WORDS], words[1][:_MOST_WORDS])
