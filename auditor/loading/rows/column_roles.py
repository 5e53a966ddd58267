"""Columns of ids, dates or weights, which describe no row, recognised by their values and names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from auditor.core.rows import FloatArray, is_number

FEWEST_VALUES = 20
_ALMOST_ALL = 0.95
_NUMBERS_OF_ROWS = 0.9
_FEWEST_DIGITS = 7
_LONGEST_NAME = 64
_WHOLE_NAMES = ("id", "uuid", "index", "rowid", "row_id", "rownames")
_ID = re.compile(r"(^|[_\W])(id|ids|uuid|guid)($|[_\W\d])|[a-z](Id|ID|Uuid|UUID)$", re.ASCII)
_HASH = re.compile(r"\{?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}?|[0-9a-f]{16,128}", re.I | re.A)
_TIME = r"([T ]\d{1,2}:\d{2}.*)?"
_DATE = re.compile(
    rf"\d{{4}}([-/.])\d{{1,2}}\1\d{{1,2}}{_TIME}|\d{{1,2}}([-/.])\d{{1,2}}\3(\d{{4}}|\d{{2}}){_TIME}"
    r"|\d{1,2}[- ][A-Z][a-z]{2,8}[- ,]+\d{2,4}|[A-Z][a-z]{2,8} \d{1,2},? \d{4}|\d{4}-\d{2}",
    re.ASCII,
)
_DATED = re.compile(r"(^|[_\W])(date|dates|day|dob|time|timestamp|datetime|created|updated|at|ts)($|[_\W\d])", re.I)
# Of surveys, by the names that their publishers use; a bare "weight" may be that of a body.
_WEIGHT = re.compile(
    r"fnlwgt|f(ina)?lw(gh|eigh)?t|[hp]?wgtp\d*|pwgtp\d*|(per|hh|fin|asec|earn|samp|pw|an)_?w(gh)?t\d*|wt(fin\w*|mec\w*|int\w*)"
    r"|(sample|sampling|survey|person|case|design|final|inverse_probability|ip|post_?strat\w*|analysis)[_\W]?(weight|wgt|wt)s?"
    r"|weights|wgt|wt",
    re.IGNORECASE,
)
_BODY = re.compile(r"(^|[_\W])(height|bmi|waist|hip)($|[_\W\d])", re.IGNORECASE)


def id_like(frame: pd.DataFrame) -> list[str]:
    """Columns that name rows rather than describe them, by any name, of at least FEWEST_VALUES values.

    Whole numbers that differ in all rows and go up in steps of one, or from row to row; that differ in nine rows of ten
    and have seven digits or more, all as many; or that differ in all and are called an id. Text that differs in 19 rows
    of 20 and is no prose.
    """
    return [str(name) for name in frame.columns if _names_rows(str(name), frame[name])]


def repeating_ids(frame: pd.DataFrame) -> list[str]:
    """Columns identifying a person with several rows: UUIDs, hashes, many values under an id-like name."""
    return [str(name) for name in frame.columns if _names_somebody(str(name), frame[name])]


def called_an_id(name: str) -> bool:
    """Whether a column's name suggests that its values are identifiers."""
    return name.lower() in _WHOLE_NAMES or bool(_ID.search(name))


def called_a_weight(name: str) -> bool:
    """Whether a column's name is one that surveys use for weights."""
    return _WEIGHT.fullmatch(name) is not None


def date_like(frame: pd.DataFrame) -> list[str]:
    """Columns of dates or times: text in the usual spellings, or numbers such as 20261124 in a column called a date."""
    return [str(name) for name in frame.columns if _dates(str(name), frame[name].dropna())]


def weight_like(frame: pd.DataFrame) -> list[str]:
    """Numeric columns with a survey-weight name; "weight" beside a height column is body weight."""
    body = any(_BODY.search(str(name)) for name in frame.columns)
    found = []
    for name in map(str, frame.columns):
        named = _WEIGHT.fullmatch(name) or (name.lower() == "weight" and not body)
        if named and is_number(frame[name]):
            found.append(name)
    return [name for name in found if not (frame[name].dropna() < 0).any()]


def _names_rows(name: str, column: pd.Series[Any]) -> bool:
    values = column.dropna()
    if len(values) < FEWEST_VALUES or pd.api.types.is_bool_dtype(values):
        return False
    different = values.nunique() / len(values)
    if not pd.api.types.is_numeric_dtype(values):
        return different >= _ALMOST_ALL and not _is_prose(values)
    numbers = _whole(values)
    if numbers is None or different < _NUMBERS_OF_ROWS:
        return False
    if different == 1.0:
        steps = np.diff(numbers)
        if (steps > 0).all() or (steps < 0).all() or (np.diff(np.sort(numbers)) == 1).all():
            return True
        if name.lower() in _WHOLE_NAMES or _ID.search(name):
            return True
    digits = np.floor(np.log10(np.maximum(np.abs(numbers), 1.0))) + 1
    return bool(numbers.min() > 0 and digits.min() == digits.max() and digits.min() >= _FEWEST_DIGITS)


def _names_somebody(name: str, column: pd.Series[Any]) -> bool:
    values = column.dropna()
    if len(values) < FEWEST_VALUES or values.nunique() <= FEWEST_VALUES or pd.api.types.is_bool_dtype(values):
        return False
    if pd.api.types.is_numeric_dtype(values):
        return bool(_ID.search(name)) and _whole(values) is not None
    if _is_prose(values):
        return False
    return bool(_ID.search(name)) or _share(values, _HASH) >= _ALMOST_ALL


def _is_prose(values: pd.Series[Any]) -> bool:
    text = values.astype("string")
    return bool(text.str.len().mean() >= _LONGEST_NAME) and _share(values, _HASH) < _ALMOST_ALL


def _dates(name: str, values: pd.Series[Any]) -> bool:
    if values.nunique() < 2:
        return False
    if not pd.api.types.is_numeric_dtype(values):
        return _share(values, _DATE) >= _ALMOST_ALL
    numbers = _whole(values)
    if numbers is None or not _DATED.search(name):
        return False
    month, day = numbers // 100 % 100, numbers % 100
    calendar = (
        (numbers >= 19_000_101) & (numbers < 21_000_000) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    )
    seconds = (numbers > 3e8) & (numbers < 4e9)
    return bool(calendar.all() or seconds.all() or ((numbers > 3e11) & (numbers < 4e12)).all())


def _whole(values: pd.Series[Any]) -> FloatArray | None:
    """The numbers, where all of them are whole."""
    numbers = values.to_numpy(np.float64)
    return numbers if np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all() else None


def _share(values: pd.Series[Any], pattern: re.Pattern[str]) -> float:
    """The share of values that are of the pattern, by their different spellings."""
    text = values.astype("string").str.strip()
    same = text.map({spelling: bool(pattern.fullmatch(spelling)) for spelling in text.unique()})
    return float(same.mean()) if len(same) else 0.0
