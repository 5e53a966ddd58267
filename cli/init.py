"""``auditor init``: a commented audit.toml from a data file's columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from auditor.data.preprocessing import as_text, label_name
from auditor.files import write_beside
from auditor.reading.columns import id_like
from auditor.reading.tables import open_table
from auditor.record.text import visible

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
    """Writes the configuration. Raises UsageError where the data cannot be read."""
    file = open_table(data)
    frame = file.read(file.columns, {}).to_pandas()
    write_beside(out, _config(data, out, frame).encode())


def _config(data: Path, out: Path, frame: pd.DataFrame) -> str:
    levels = {str(c): sorted({label_name(v) for v in as_text(frame[c]).dropna().unique()}) for c in frame.columns}
    two_valued = [c for c, values in levels.items() if len(values) == 2]
    sensitive = [c for c in levels if _SENSITIVE.search(c) and len(levels[c]) <= 20]
    candidates = [c for c in two_valued if c not in sensitive]
    target = next((c for c in candidates if _TARGET.search(c)), None)
    ids = id_like(frame)
    # A column of amounts is a feature more often than not: what is predicted stands last, or is all there is.
    amounts = [c for c in list(levels)[-1 if candidates else 0 :] if _NUMBER_TARGET.search(c) and c not in ids]
    numbers = [c for c in amounts if pd.api.types.is_numeric_dtype(frame[c]) and len(levels[c]) > _MOST_CODES]
    number = numbers[-1] if numbers and target is None else None
    if target is None and number is None and candidates:
        target = candidates[-1]
    features = [c for c in levels if c not in (target, number, *ids)]
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
    ]
    if target is not None:
        lines += [
            f"target = {_toml(target)}            # column of true labels; two-valued: {_named(candidates)}",
            f"positive = {_toml(_favourable(target, levels[target]))}"
            f"          # the FAVOURABLE label, of {_named(levels[target])}",
        ]
    elif number is not None:
        lines += [f"target = {_toml(number)}            # column of true numbers, for a model that predicts one"]
    else:
        lines += ['# target = "..."                     # column of true labels: no two-valued column was found']
    lines += [
        f"sensitive = {_toml(sensitive)}"
        if sensitive
        else '# sensitive = ["sex", "race"]         # columns whose groups are compared: none was recognised by name',
        f"# features = {visible(_toml(features))}   # what the model takes, where its file does not say",
    ]
    if ids:
        lines += [f"# left out of the features, as they name rows: {_named(ids)}"]
    lines += [
        "seed = 0",
        'device = "auto"',
        "error_rate = 0.05                    # chance of any false FAIL, and of any false PASS, over the whole scan",
        "",
        *(_PROBES_OF_LABELS if number is None else _PROBES_OF_NUMBERS),
        "",
        "# Without criteria the built-in profile auditor-default-3 applies, a convention, not law. Yours replace it:",
        "# [[criteria]]",
        f'# metric = "{"demographic_parity_difference" if number is None else "mean_residual_difference"}"',
        '# direction = "at_most"               # at_most, at_least, or within with bound = [low, high]',
        "# bound = 0.10" if number is None else "# bound = 1000                        # in the target's own unit",
        '# source = "model risk policy 4.2"',
        '# set_by = "Model Risk Committee"',
        '# set_at = "2026-01-31"',
        "",
    ]
    return "\n".join(lines)


_PROBES_OF_LABELS = ("# [probes.feature_attribution]", "# n_samples = 256")
_PROBES_OF_NUMBERS = (
    "# The range that predictions and true values can take, known from elsewhere: without it no mean can be judged.",
    "# [probes.regression_fairness]",
    "# value_range = [0, 100000]",
)


def _named(names: list[str]) -> str:
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
