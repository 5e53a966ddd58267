"""``auditor init``: a commented audit.toml from a data file's columns."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from auditor.core.files import write_beside
from auditor.data.preprocessing import as_text, label_name
from auditor.loading.rows.column_roles import id_like
from auditor.loading.rows.table_files import open_table
from auditor.report.record.number_text import visible

_SENSITIVE = re.compile(
    r"(^|[_\W])(sex|gender|race|racial|ethnic\w*|age|religion|disab\w*|nationality|native|orientation|marital|"
    r"afam|black|hispanic|female|male)([_\W]|$)",
    re.IGNORECASE,
)
_TARGET = re.compile(
    r"(^|[_\W])(target|label|class|outcome|y|approved|deny|denied|default|hired|income)([_\W]|$)", re.I
)
_NUMBER_TARGET = re.compile(
    r"(^|[_\W])(target|outcome|y|price|cost|costs|charges|value|amount|salary|wage|income|score|rating)([_\W]|$)", re.I
)
_MOST_CODES = 20
_FAVOURABLE = ("approved", "yes", "true", "accept", "accepted", "hired", "good", "granted", "1", ">50k")
_UNFAVOURABLE_TARGET = re.compile(r"den(y|ied)|default|reject|fraud|recid", re.IGNORECASE)


def write_config(data: Path, out: Path) -> None:
    """Write the configuration.

    Raises UsageError where the data cannot be read.
    """
    file = open_table(data)
    frame = file.read(file.columns, {}).to_pandas()
    write_beside(out, _config(data, out, frame).encode())


@dataclass(frozen=True)
class _Columns:
    """The columns of a file by what they seem to be.

    ``levels``: the values of each. ``candidates``: two-valued columns that may hold the labels. ``target``: the one
    that seems to. ``number``: where none does, a column of numbers to predict. ``ids``: columns that name rows.
    """

    levels: dict[str, list[str]]
    sensitive: list[str]
    candidates: list[str]
    target: str | None
    number: str | None
    ids: list[str]

    @property
    def features(self) -> list[str]:
        """What is left for a model to take."""
        return [c for c in self.levels if c not in (self.target, self.number, *self.ids)]


def _guess_columns(frame: pd.DataFrame) -> _Columns:
    levels = {str(c): sorted({label_name(v) for v in as_text(frame[c]).dropna().unique()}) for c in frame.columns}
    sensitive = [c for c in levels if _SENSITIVE.search(c) and len(levels[c]) <= 20]
    candidates = [c for c, values in levels.items() if len(values) == 2 and c not in sensitive]
    target = next((c for c in candidates if _TARGET.search(c)), None)
    ids = id_like(frame)
    # A column of amounts is a feature more often than not: what is predicted stands last, or is all there is.
    amounts = [c for c in list(levels)[-1 if candidates else 0 :] if _NUMBER_TARGET.search(c) and c not in ids]
    numbers = [c for c in amounts if pd.api.types.is_numeric_dtype(frame[c]) and len(levels[c]) > _MOST_CODES]
    number = numbers[-1] if numbers and target is None else None
    if target is None and number is None and candidates:
        target = candidates[-1]
    return _Columns(levels, sensitive, candidates, target, number, ids)


def _config(data: Path, out: Path, frame: pd.DataFrame) -> str:
    columns = _guess_columns(frame)
    try:
        path = str(data.resolve().relative_to(out.resolve().parent))
    except ValueError:
        path = str(data.resolve())
    lines = [
        "# What `auditor scan MODEL --config FILE` asks of this model. Every flag of scan is a key here; flags win.",
        "# Where nobody names it with --config, it may say what is measured in its own folder and nothing else.",
        f"# Guessed from {visible(data.name)} ({len(frame):,} rows): read it and correct it before you trust a result.",
        "",
        "[audit]",
        f"data = {_toml(path)}",
        '# train = "train.csv"                 # the rows the model was trained on: enables membership inference',
        *_target_lines(columns),
        *_feature_lines(columns),
        "seed = 0",
        'device = "auto"',
        "error_rate = 0.05                    # chance of any false FAIL, and of any false PASS, over the whole scan",
        "",
        *_criteria_lines(predicts_number=columns.number is not None),
    ]
    return "\n".join(lines)


def _target_lines(columns: _Columns) -> list[str]:
    if columns.target is not None:
        levels = columns.levels[columns.target]
        return [
            f"target = {_toml(columns.target)}"
            f"            # column of true labels; two-valued: {_comment_text(columns.candidates)}",
            f"positive = {_toml(_favourable(columns.target, levels))}"
            f"          # the FAVOURABLE label, of {_comment_text(levels)}",
        ]
    if columns.number is not None:
        return [f"target = {_toml(columns.number)}            # column of true numbers, for a model that predicts one"]
    return ['# target = "..."                     # column of true labels: no two-valued column was found']


def _feature_lines(columns: _Columns) -> list[str]:
    lines = [
        f"sensitive = {_toml(columns.sensitive)}"
        if columns.sensitive
        else '# sensitive = ["sex", "race"]         # columns whose groups are compared: none was recognised by name',
        f"# features = {visible(_toml(columns.features))}   # what the model takes, where its file does not say",
    ]
    if columns.ids:
        lines.append(f"# left out of the features, as they name rows: {_comment_text(columns.ids)}")
    return lines


def _criteria_lines(*, predicts_number: bool) -> list[str]:
    """Options of probes and an example of a criterion, for a model of labels or of numbers."""
    return [
        *(_PROBES_OF_NUMBERS if predicts_number else _PROBES_OF_LABELS),
        "",
        "# Without criteria the built-in profile auditor-default-3 applies, a convention, not law. Yours replace it:",
        "# [[criteria]]",
        f'# metric = "{"mean_residual_difference" if predicts_number else "demographic_parity_difference"}"',
        '# direction = "at_most"               # at_most, at_least, or within with bound = [low, high]',
        "# bound = 1000                        # in the target's own unit" if predicts_number else "# bound = 0.10",
        '# source = "model risk policy 4.2"',
        '# set_by = "Model Risk Committee"',
        '# set_at = "2026-01-31"',
        "",
    ]


_PROBES_OF_LABELS = ("# [probes.feature_attribution]", "# n_samples = 256")
_PROBES_OF_NUMBERS = (
    "# The range that predictions and true values can take, known from elsewhere: without it no mean can be judged.",
    "# [probes.regression_fairness]",
    "# value_range = [0, 100000]",
)


def _comment_text(names: list[str]) -> str:
    """Names for a comment, which a line break in one of them must not end."""
    return visible(", ".join(names))


def _toml(value: str | list[str]) -> str:
    """A TOML string or list of strings; JSON but for DEL, and without the surrogate pairs that TOML forbids."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _favourable(target: str, values: list[str]) -> str:
    if _UNFAVOURABLE_TARGET.search(target):
        for value in values:
            if value.lower() in ("no", "false", "0"):
                return value
    return next((v for v in values if v.lower() in _FAVOURABLE), values[-1])
