"""Croissant metadata held against the rows: what they state of the file, its columns, groups, dates and people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.files import sha256_of, table_place
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.models.files.model_bytes import printable
from auditor.models.format_names import ROWS_IN_MEMORY
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Exact, Undefined
from probes.performance.croissant_statements import COLLECTION, REQUIRED, Column, Statements, read_statements
from probes.privacy.personal_data import PersonalData
from probes.probe_inputs import training_rows

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_MOST_SHOWN, _LONGEST = 5, 120
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"([\d,]+(?:\.\d+)?)\s*(?:([kmgt]?)(i?)b(?:ytes?)?|bytes?)?", re.I)
_NUMBERS = ("Float", "Float16", "Float32", "Float64", "Number", "Double")
_WHOLE = ("Integer", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
_TRUTH = ({"0", "1"}, {"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})
_DATES = ("Date", "DateTime")
_DATE = re.compile(r"\d{4}(?:-\d{2}(?:-\d{2})?)?")
# Columns that say when a row was made: no such date lies after the end of the collection. Others may be plans.
_OF_THE_ROW = re.compile(
    r"date|time|day|ts|(.*_)?(created|recorded|collected|observed|measured|logged|entered|submitted|timestamp|datetime)"
    r"(_.*)?",
    re.I,
)
_NONE_HELD = re.compile(
    r"no|none|\W*(?:this |the )?(?:data ?set|data)?\s*\b"
    r"(?:no|without|free of|(?:contains?|has|have|holds?|includes?) no|(?:does|do) not (?:contain|have|hold|include))"
    r"\s+(?:\w+[\s/-]+){0,3}(?:personal|personally|sensitive|pii)\b.*",
    re.I | re.S,
)


@dataclass
class _Held:
    """What came of holding statements of one kind against the rows: the number of those that could be held against
    them, a sentence on each that is contradicted, and one on each that nobody can tell here."""

    checked: int = 0
    contradicted: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)

    def hold(self, agrees: bool, sentence: str) -> None:
        """Counts a statement, with what contradicts it unless it agrees."""
        self.checked += 1
        if not agrees:
            self.contradicted.append(sentence)


class DataDocumentation(BaseProbe):
    """What Croissant metadata state of the training rows, held against the rows: nothing is read from the net.

    - ``contradicted_statements``: How many statements the rows contradict, by what they are ``about``:

      - ``rows``: the number of records (an annotation of a record set, as Croissant 1.1 types it).
      - ``columns``: that a field's column is there, and holds what its type says: whole numbers, numbers, truth values
        or dates. Any value can be a text, and types of other vocabularies are not looked at.
      - ``file``: its SHA-256 and its size, the latter as far as it was written out.
      - ``groups``: how many rows are of each group of a sensitive feature.
      - ``dates``: that a collection began before it ended and before the data were published, and that no row was made
        after the collection ended. Looked at are columns that say by their name when a row was made, with dates from
        the year to the day.
      - ``personal data``: ``rai:personalSensitiveInformation`` that says that there are none, where
        :class:`~probes.privacy.personal_data.PersonalData` recognises some or finds columns of special categories.

    - ``missing_statements``: What must be stated and is not, or only as "unknown": of the properties that Croissant
      requires (``required``, the licence among them), of how and when the data were collected (``collection``), of
      personal data that were found (``personal data``), and of columns without a description (``columns``).

    Numbers are known exactly. The file is the one of the same name or SHA-256, else the only one that is described;
    rows in memory have none. What no measurement can show, such as whether a licence is the right one, stays a claim.

    croissant: path of the metadata, a JSON-LD file (Croissant 1.0 or 1.1, with the RAI vocabulary or without).

    Raises NotApplicableError without metadata, ConfigError where the file is none.

    Sources: Akhtar et al., NeurIPS Datasets and Benchmarks 2024; MLCommons, Croissant Format Specification 1.1 (2025)
    and Croissant RAI Specification 1.0 (2024).
    """

    name = "data_documentation"
    pillar = "performance"
    goal = "Does what the metadata state hold of the rows?"
    citation = "Akhtar et al., NeurIPS Datasets and Benchmarks 2024; MLCommons, Croissant 1.1"
    methods = ("statements",)
    needs = (Need.TRAIN,)
    questions = (AuditQuestion("documented", form="count", headline=("contradicted_statements",)),)
    exact = {
        "contradicted_statements": "every statement is held against all rows",
        "missing_statements": "every statement is read",
    }
    untrusted_options = allow_untrusted(reads=("croissant",))
    metrics = define_metrics(
        """
        contradicted_statements: number of statements of the metadata that the rows contradict; [0, inf), ideal 0; at 1
          one statement, which the detail names, is untrue of these rows; Akhtar et al., NeurIPS Datasets and Benchmarks
          2024
        missing_statements: number of things that the metadata should state and do not; [0, inf), ideal 0; at 1 one of
          them, which the detail names, is left open, such as the licence; MLCommons, Croissant 1.1
        """
    )

    def __init__(self, *, croissant: str | None = None) -> None:
        self.croissant = croissant

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the training rows; the model is not called."""
        if self.croissant is None:
            raise NotApplicableError(
                "Needs metadata of the rows: add --croissant FILE to scan-data, or --set "
                "data_documentation.croissant=FILE."
            )
        rows = training_rows(data)
        path = None if rows.table is None else table_place(rows.table)[0]
        path = None if path is None or path.name == ROWS_IN_MEMORY else path
        digest = None if path is None else sha256_of(path)
        stated = read_statements(self.croissant, None if path is None else Path(str(rows.table)).name, digest)
        names, frame, whole = _columns_of(rows, stated)
        personal = _personal(model, rows, rng)
        held = {
            "rows": _rows(stated, len(frame)),
            "columns": _columns(stated.columns, names, frame, whole=whole),
            "file": _file(stated, path, digest),
            "groups": _groups(stated.columns, rows),
            "dates": _dates(stated, frame),
            "personal data": _people(stated, personal),
        }
        n = len(rows)
        found = [_contradicted(about, own, n) for about, own in held.items() if own.checked or own.untold]
        if not any(own.checked for own in held.values()):
            # Metadata that state nothing are contradicted by nothing, and that is no agreement.
            why = "The metadata state nothing that these rows could contradict."
            if path is not None and stated.file is None and stated.named:
                why = f"The metadata describe {', '.join(map(printable, stated.named[:3]))}, and not {path.name}."
            found = [_contradicted("anything", _Held(untold=[why]), n)]
        missing = {
            "required": [name for name in REQUIRED if not stated.texts(name)],
            "collection": [f"rai:{name}" for name in COLLECTION if not stated.texts(name)],
            "personal data": [] if stated.texts("personalSensitiveInformation") else personal,
            "columns": [name for name in names if name not in {column.name for column in stated.columns}],
        }
        return found + [_missing(about, own, n) for about, own in missing.items()]


def _contradicted(about: str, held: _Held, n: int) -> Measurement:
    shown = [*held.contradicted, *held.untold]
    detail = "; ".join(shown[:_MOST_SHOWN]) + ("; ..." if len(shown) > _MOST_SHOWN else "")
    return Measurement(
        metric="contradicted_statements",
        method="statements",
        estimate=Exact(known=float(len(held.contradicted))) if held.checked else Undefined(reason=detail),
        n_samples=n,
        ideal=0.0,
        ideal_when_same="nothing",
        at={"about": about},
        detail=detail or f"{held.checked:,} held against the rows",
    )


def _missing(about: str, names: Sequence[str], n: int) -> Measurement:
    return Measurement(
        metric="missing_statements",
        method="statements",
        estimate=Exact(known=float(len(names))),
        n_samples=n,
        ideal=0.0,
        ideal_when_same="nothing",
        at={"about": about},
        detail=", ".join(printable(name, _LONGEST) for name in names[:_MOST_SHOWN])
        + (", ..." if names[_MOST_SHOWN:] else ""),
    )


def _columns_of(rows: AuditData, stated: Statements) -> tuple[list[str], pd.DataFrame, bool]:
    """The columns of the table, those that are looked at, and True; of rows in memory those that are known, and whether
    these are all."""
    import pandas as pd

    from auditor.loading.rows.table_files import open_table

    if rows.table is not None:
        file = open_table(rows.table)
        described = {column.name for column in stated.columns}
        own = [name for name in file.columns if name in described or _says_when(name)] or list(file.columns[:1])
        return list(file.columns), file.read(own, {}).to_pandas(), True
    tables = [rows.X if isinstance(rows.X, pd.DataFrame) else None, rows.sensitive_features, rows.identifiers]
    named = {str(name): table[name].to_numpy() for table in tables if table is not None for name in table.columns}
    # What the column of labels is called, nobody says.
    return list(named), pd.DataFrame(named, index=range(len(rows))), rows.y_true is None and rows.target_values is None


def _rows(stated: Statements, n: int) -> _Held:
    held = _Held()
    if stated.n is not None:
        held.hold(stated.n == n, f"states {stated.n:,} rows, and there are {n:,}")
    return held


def _columns(columns: Sequence[Column], names: Sequence[str], frame: pd.DataFrame, *, whole: bool) -> _Held:
    held = _Held()
    for column in columns:
        shown = printable(column.name, _LONGEST)
        if column.name not in names and not whole:
            held.untold.append(f"whether there is a column {shown}, rows in memory do not tell")
            continue
        held.hold(column.name in names, f"states a column {shown}, and there is none")
        kind = next((kind for kind in column.kinds if kind in (*_NUMBERS, *_WHOLE, *_DATES, "Boolean")), None)
        if column.name in frame and kind is not None and not column.changed:
            against = _against(frame[column.name].dropna(), kind)
            if against is not None:
                held.hold(not against, f"states {kind} for column {shown}, which holds {against}")
    return held


def _against(values: pd.Series[Any], kind: str) -> str | None:
    """What values hold that are not of a kind, "" where all are of it, None where nobody can tell."""
    if not len(values):
        return None
    truth = bool(values.map(lambda value: isinstance(value, bool | np.bool_)).all())
    numbers = values.dtype.kind in "iuf" and not truth
    if kind == "Boolean":
        different = {str(value).lower().removesuffix(".0") for value in values.unique()[:3]}
        return "" if truth or any(different <= known for known in _TRUTH) else "other values than two truth values"
    if kind in _DATES:
        return _against_dates(values, number_or_truth=numbers or truth)
    if not numbers:
        return "truth values" if truth else "texts"
    own = values.to_numpy(np.float64)
    broken = int((own != np.rint(own)).sum()) if kind in _WHOLE else 0
    return f"{broken:,} numbers that are not whole" if broken else ""


def _against_dates(values: pd.Series[Any], *, number_or_truth: bool) -> str | None:
    from auditor.loading.rows.column_roles import date_like

    if values.dtype.kind == "M" or date_like(values.to_frame()):
        return ""
    if number_or_truth:
        # A number may be a year, or a time in seconds.
        return None if values.dtype.kind in "iuf" else "truth values"
    digits = values.astype("string").str.contains(r"\d").any()
    return None if digits else "texts without a digit"


def _file(stated: Statements, path: Path | None, digest: str | None) -> _Held:
    held, file = _Held(), stated.file
    if file is None or path is None:
        return held
    known = str(file.get("sha256", "")).strip().lower()
    if re.fullmatch(r"[0-9a-f]{64}", known):
        held.hold(known == digest, f"states the SHA-256 {known[:12]}..., and the file's is {str(digest)[:12]}...")
    elif known:
        held.untold.append(f"{printable(known, 20)} is no SHA-256")
    if size := file.get("contentSize"):
        actual, agrees = path.stat().st_size, _is_size(str(size), path.stat().st_size)
        if agrees is None:
            held.untold.append(f"{printable(str(size), 20)} is no size of a file")
        else:
            held.hold(agrees, f"states a size of {printable(str(size), 20)}, and the file has {actual:,} bytes")
    return held


def _is_size(stated: str, actual: int) -> bool | None:
    """Whether a size says how many bytes there are, to the digits that it has; a kB may be 1,000 or 1,024 of them."""
    match = _SIZE.fullmatch(stated.strip())
    if match is None:
        return None
    number, power = match[1].replace(",", ""), _UNITS[(match[2] or "").lower()]
    half = 0.5 * 10.0 ** -len(number.partition(".")[2]) if power else 0.0
    bases = (1024,) if match[3] else (1000, 1024)
    return any(abs(float(number) - actual / base**power) <= half for base in bases)


def _groups(columns: Sequence[Column], rows: AuditData) -> _Held:
    held = _Held()
    known = [] if rows.sensitive_features is None else list(map(str, rows.sensitive_features.columns))
    for column in columns:
        if column.counts is None:
            continue
        if column.name not in known:
            held.untold.append(f"add --sensitive {printable(column.name, _LONGEST)} to count its groups")
            continue
        groups = rows.groups(column.name)
        sizes = dict(zip(groups.titles, groups.sizes.tolist(), strict=True))
        for value, n in column.counts.items():
            there = sizes.get(value, 0)
            shown = f"{printable(column.name, _LONGEST)}={printable(value, _LONGEST)}"
            held.hold(n == there, f"states {n:,} rows of {shown}, and there are {there:,}")
    return held


def _dates(stated: Statements, frame: pd.DataFrame) -> _Held:
    held = _Held()
    frames = [found for text in stated.texts(COLLECTION[1]) for found in _DATE.findall(text)]
    published = [found for text in stated.texts("datePublished")[:1] for found in _DATE.findall(text)[:1]]
    if len(frames) > 1:
        held.hold(_first(frames[0]) <= _last(frames[-1]), f"states a collection from {frames[0]} to {frames[-1]}")
    if frames and published:
        held.hold(
            _first(frames[0]) <= _last(published[0]),
            f"states a collection from {frames[0]} on, and publication on {published[0]}",
        )
    ends = frames[1:][-1:] or published
    live = str(stated.dataset.get("isLiveDataset")).lower() == "true"
    if not ends or live:
        return held
    what = "collected" if frames[1:] else "published"
    for name in map(str, frame.columns):
        days = _days(name, frame[name])
        if days is not None:
            late = int((days > _last(ends[0])).sum())
            shown = printable(name, _LONGEST)
            held.hold(not late, f"states that the rows were {what} until {ends[0]}, and {late:,} of {shown} are later")
    return held


def _first(date: str) -> str:
    """The first day of a year, a month or a day."""
    return date + "-01-01"[len(date) - 4 :]


def _last(date: str) -> str:
    """A day after which nothing lies in the year, the month or the day, as texts are ordered."""
    return date + "-12-31"[len(date) - 4 :]


def _says_when(name: str) -> bool:
    return _OF_THE_ROW.fullmatch(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)) is not None


def _days(name: str, values: pd.Series[Any]) -> Any:
    """(n,) days as texts, year first, of a column that says when a row was made; None of any other."""
    import pandas as pd

    if not _says_when(name):
        return None
    values = values.dropna()
    if values.dtype.kind == "M" or isinstance(values.dtype, pd.DatetimeTZDtype):
        return values.dt.strftime("%Y-%m-%d").to_numpy(str)
    days = values.astype("string").str.slice(0, 10)
    dated = days.str.fullmatch(r"\d{4}-\d{2}-\d{2}")
    return days[dated].to_numpy(str) if len(days) and dated.all() else None


def _personal(model: AuditedModel, rows: AuditData, rng: np.random.Generator) -> list[str]:
    """What was found of personal data, in words."""
    try:
        found = PersonalData().measure(model, rows, rng)
    except NotApplicableError:
        return []
    metrics: Mapping[str, str] = {"recognised_rate": "personal data in texts", "special_category_columns": "columns"}
    return [
        f"{metrics[m.metric]} ({m.detail})"
        for m in found
        if m.metric in metrics and m.estimate.value > 0 and m.at.get("kind", "any") == "any"
    ]


def _people(stated: Statements, personal: Sequence[str]) -> _Held:
    held = _Held()
    values = [value for key, value in stated.dataset.items() if key.lower() == "personalsensitiveinformation"]
    texts: Iterator[str] = (str(text) for value in values for text in (value if isinstance(value, list) else [value]))
    for text in texts:
        if _NONE_HELD.fullmatch(text.strip().rstrip(".!")):
            shown = printable(" ".join(text.split()), 60)
            held.hold(not personal, f"states {shown!r}, and there are {'; '.join(personal)}")
    return held
