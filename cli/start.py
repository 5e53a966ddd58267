"""``auditor start``: questions about a model and its rows, an audit.toml with the answers, and the first audit."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import typer

from auditor.core.errors import UsageError, did_you_mean
from auditor.core.files import write_beside
from auditor.data.audit_data import favourable
from auditor.data.preprocessing import as_text, label_name
from auditor.loading.rows.column_roles import id_like
from auditor.loading.rows.table_files import open_table
from auditor.models.endpoint.client import is_endpoint
from auditor.report.record.number_text import visible
from auditor.run.scan_options import ScanOptions

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
_NONE = "-"
_FAVOURABLE = ("approved", "yes", "true", "accept", "accepted", "hired", "good", "granted", "1", ">50k")
_UNFAVOURABLE_TARGET = re.compile(r"den(y|ied)|default|reject|fraud|recid", re.IGNORECASE)


@dataclass(frozen=True)
class _Columns:
    """The columns of a file by what they seem to be, or by what the user said.

    ``levels``: the values of each. ``candidates``: two-valued columns that may hold the labels. ``target``: the one
    that seems to. ``number``: where none does, a column of numbers to predict. ``ids``: columns that name rows.
    ``positive``: the favourable label. ``why_target``: what speaks for the target, and how sure that is.
    """

    levels: dict[str, list[str]]
    sensitive: list[str]
    candidates: list[str]
    target: str | None
    number: str | None
    ids: list[str]
    positive: str | None = None
    why_target: str = ""

    @property
    def features(self) -> list[str]:
        """What is left for a model to take."""
        return [c for c in self.levels if c not in (self.target, self.number, *self.ids)]

    @property
    def flags(self) -> dict[str, list[str]]:
        """The same as flags of a scan."""
        return {
            "--target": [each for each in (self.target or self.number,) if each is not None],
            "--positive": [] if self.positive is None else [self.positive],
            "--sensitive": self.sensitive,
        }


@dataclass(frozen=True)
class _Setup:
    """What the configuration is about: files, columns, and statements as ``section.key``."""

    data: Path
    model: str | None
    out: Path
    n_rows: int
    columns: _Columns
    statements: Mapping[str, str] = field(default_factory=dict)


def is_interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def write_config(paths: Sequence[str], out: Path, flag_values: Mapping[str, object]) -> bool:
    """Ask, and write the configuration; return whether the audit is to be run.

    ``paths``: the model and its rows, or the rows alone. Raises UsageError where the data cannot be read, or where
    nobody can be asked.
    """
    if len(paths) > 2:
        raise UsageError("Name a model and a file of rows, or the rows alone: auditor start MODEL DATA.")
    model, data = (None if len(paths) == 1 else paths[0]), Path(paths[-1])
    if model is not None and is_endpoint(model):
        raise UsageError(
            "A model server needs no audit.toml: auditor probes endpoint URL --model-name NAME tells what it can "
            "answer, and auditor scan URL --model-name NAME audits it."
        )
    if model is not None and not os.path.exists(model):
        raise UsageError(f"There is no model at {model!r}: name its file, then the file of rows.")
    file = open_table(data)
    frame = file.read(file.columns, {}).to_pandas()
    guessed = _guess_columns(frame)
    setup = _Setup(data, model, out, len(frame), _with_flags(guessed, flag_values))
    if is_interactive():
        setup = _ask(setup, flag_values)
    elif model is not None:
        _check_complete(setup.columns, flag_values, data)
    write_beside(out, _config(setup).encode())
    if model is None:
        return False
    return not is_interactive() or typer.confirm(f"Wrote {out}. Run the audit now?", default=True)


def with_positive(options: ScanOptions) -> ScanOptions:
    """The options with the favourable label, asked for where two labels of --target leave open which it is."""
    path, target = options.data, options.target
    if options.positive is not None or not options.sensitive or target is None or not os.path.isfile(path or ""):
        return options
    file = open_table(str(path))
    levels = sorted(map(label_name, as_text(file.read([target], {}).to_pandas()[target]).dropna().unique()))
    if len(levels) != 2 or favourable(None, levels) is not None:
        return options
    shown = f"Favourable label ({_comment_text(levels)})"
    return replace(options, positive=_ask_for(shown, levels, _favourable(target, levels))[0])


def _check_complete(columns: _Columns, flag_values: Mapping[str, object], data: Path) -> None:
    """Raise UsageError for the flags that answer what cannot be asked."""
    missing = {flag: said for flag, said in columns.flags.items() if said and not flag_values[flag[2:]]}
    if missing or not columns.flags["--target"]:
        words = [word for flag, said in missing.items() for each in said for word in (flag, each)]
        raise UsageError(
            "There is no terminal to ask on: add "
            + (f"{shlex.join(words)}, if these guesses from {data.name} are right" if words else "--target COLUMN")
            + (f" (target: {columns.why_target})." if "--target" in words and columns.why_target else ".")
        )


def _with_flags(columns: _Columns, flag_values: Mapping[str, object]) -> _Columns:
    """The columns with what the flags say of them."""
    target, positive, sensitive = (flag_values[name] for name in ("target", "positive", "sensitive"))
    if target is not None:
        columns = _with_target(columns, _check_known(str(target), columns.levels))
    if isinstance(sensitive, list) and sensitive:
        columns = replace(columns, sensitive=[_check_known(name, columns.levels) for name in sensitive])
    if positive is not None and columns.target is not None:
        columns = replace(columns, positive=_check_known(str(positive), columns.levels[columns.target]))
    return columns


def _with_target(columns: _Columns, target: str) -> _Columns:
    levels = columns.levels[target]
    columns = replace(columns, why_target="")
    if len(levels) > _MOST_CODES:
        return replace(columns, target=None, number=target, positive=None)
    return replace(columns, target=target, number=None, positive=_favourable(target, levels))


def _check_known(word: str, words: Mapping[str, object] | Sequence[str]) -> str:
    if word not in words:
        listed = visible(", ".join(list(words)[:_MOST_CODES]))
        raise UsageError(f"There is no {visible(word)!r}{did_you_mean(word, words) or f': there are {listed}'}.")
    return word


def _ask(setup: _Setup, flag_values: Mapping[str, object]) -> _Setup:
    """The setup with the answers of whoever sits at the terminal."""
    columns = setup.columns
    typer.echo(f"{visible(setup.data.name)}: {setup.n_rows:,} rows, columns {_comment_text(list(columns.levels))}")
    if not flag_values["target"]:
        why = f" ({columns.why_target})" if columns.why_target else ""
        guess = columns.target or columns.number
        columns = _with_target(columns, _ask_for(f"Column with the true labels{why}", columns.levels, guess)[0])
    if columns.target is not None and not flag_values["positive"]:
        levels = columns.levels[columns.target]
        shown = f"Favourable label ({_comment_text(levels)})"
        columns = replace(columns, positive=_ask_for(shown, levels, columns.positive)[0])
    if not flag_values["sensitive"]:
        columns = replace(
            columns,
            sensitive=_ask_for(
                f"Columns whose groups are compared: a,b ({_NONE} for none)",
                columns.levels,
                ",".join(columns.sensitive) or _NONE,
                several=True,
            ),
        )
    said = {}
    for key, question in _STATEMENTS.items():
        said[key] = typer.prompt(f"{question} (Enter to skip)", default="", show_default=False)
    if columns.target is not None:
        for level in columns.levels[columns.target]:
            word = typer.prompt(
                f"{visible(columns.target)} = {visible(level)} means (Enter to skip)", default="", show_default=False
            )
            said[f"labels.{columns.target}.{level}"] = word
    asked = replace(setup, columns=columns, statements={key: word for key, word in said.items() if word.strip()})
    typer.echo("\nUnderstood:")
    for name, value in _summary(asked):
        typer.echo(f"  {name:<18} {visible(value)}")
    return asked


def _summary(setup: _Setup) -> list[tuple[str, str]]:
    columns = setup.columns
    sizes = [f"{name} ({len(columns.levels[name])} groups)" for name in columns.sensitive]
    return [
        ("model", setup.model or "none"),
        ("rows", f"{setup.data}, {setup.n_rows:,}"),
        ("predicted", columns.target or columns.number or "none"),
        *([("favourable label", columns.positive)] if columns.positive is not None else []),
        ("groups compared", ", ".join(sizes) or "none"),
    ]


def _ask_for(
    question: str, known: Mapping[str, object] | Sequence[str], default: str | None, *, several: bool = False
) -> list[str]:
    """The known word of an answer, or ``several`` with commas between them; asks again for one that is not known."""
    while True:
        answer = str(typer.prompt(question, default=default))
        words = [answer] if not several else [] if answer == _NONE else [each.strip() for each in answer.split(",")]
        try:
            return [_check_known(word, known) for word in words]
        except UsageError as error:
            typer.echo(str(error))


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
    positive = None if target is None else _favourable(target, levels[target])
    why = _why_target(target or number, [c for c in candidates if _TARGET.search(c)], amounts, len(candidates))
    return _Columns(levels, sensitive, candidates, target, number, ids, positive, why)


def _why_target(guess: str | None, by_name: list[str], amounts: list[str], n_candidates: int) -> str:
    """What speaks for a guessed target, and how sure that is."""
    if guess in by_name:
        others = len(by_name) - 1
        return "by name and two values, " + (f"as {others} more: unsure" if others else "as no other: likely")
    if guess in amounts:
        return "by name and its numbers, " + ("as no other: likely" if len(amounts) == 1 else "as others too: unsure")
    return f"the last of {n_candidates} of two values, by no name: unsure" if guess is not None else ""


def _path_from(out: Path, path: Path) -> str:
    try:
        return str(path.resolve().relative_to(out.resolve().parent))
    except ValueError:
        return str(path.resolve())


def _config(setup: _Setup) -> str:
    columns = setup.columns
    lines = [
        "# What `auditor scan --config FILE` asks of this model. Every flag of scan is a key here; flags win.",
        "# Where nobody names it with --config, it may say what is measured in its own folder and nothing else.",
        f"# From {visible(setup.data.name)} ({setup.n_rows:,} rows); what you did not answer is a guess: read it "
        "before you trust a result.",
        "",
        "[audit]",
        '# model = "model.joblib"              # the file of the model'
        if setup.model is None
        else f"model = {_toml(_path_from(setup.out, Path(setup.model)))}",
        f"data = {_toml(_path_from(setup.out, setup.data))}",
        '# train = "train.csv"                 # the rows the model was trained on: enables membership inference',
        *_target_lines(columns),
        *_feature_lines(columns),
        "seed = 0",
        'device = "auto"',
        "error_rate = 0.05                    # chance of any false FAIL, and of any false PASS, over the whole scan",
        "",
        *_criteria_lines(predicts_number=columns.number is not None),
        *_statement_lines(setup.statements),
    ]
    return "\n".join(lines)


def _target_lines(columns: _Columns) -> list[str]:
    if columns.target is not None:
        levels = columns.levels[columns.target]
        return [
            f"target = {_toml(columns.target)}"
            f"            # column of true labels{_guessed(columns)}; two-valued: {_comment_text(columns.candidates)}",
            f"positive = {_toml(columns.positive or levels[-1])}"
            f"          # the FAVOURABLE label, of {_comment_text(levels)}",
        ]
    if columns.number is not None:
        guessed = _guessed(columns)
        return [f"target = {_toml(columns.number)}            # column of true numbers{guessed}, for a model of them"]
    return ['# target = "..."                     # column of true labels: no two-valued column was found']


def _guessed(columns: _Columns) -> str:
    return f", {columns.why_target}" if columns.why_target else ""


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


def _statement_lines(statements: Mapping[str, str]) -> list[str]:
    """The statements for the first two pages; what was not answered is a comment."""
    lines = ["# What the report says of itself; an empty line there names the key that is missing."]
    for section in dict.fromkeys(key.partition(".")[0] for key in _STATEMENTS):
        own = {key: question for key, question in _STATEMENTS.items() if key.startswith(f"{section}.")}
        answered = any(key in statements for key in own)
        lines.append(f"[{section}]" if answered else f"# [{section}]")
        for key, question in own.items():
            name = key.partition(".")[2]
            said = statements.get(key)
            lines.append(f'# {name} = "..."  # {question}' if said is None else f"{name} = {_toml(said)}")
    labels = {key.removeprefix("labels."): said for key, said in statements.items() if key.startswith("labels.")}
    lines.append("[labels]" if labels else '# [labels]  # such as "approved.1" = "was approved"')
    return [*lines, *(f"{_toml(key)} = {_toml(said)}" for key, said in labels.items()), ""]


_STATEMENTS = {
    "organisation.name": "Organisation that is responsible",
    "model.name": "Name of the model",
    "system.purpose": "What the system decides",
    "system.affected": "Whom it decides about",
    "data.source": "Where the rows come from",
}
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


def print_next_commands(files: Sequence[str], out: Path) -> None:
    """Print what is done with a configuration that was just written; without a model in ``files`` it is to be set."""
    name = shlex.quote(str(out))
    first = "Set model in it, read" if len(files) == 1 else "Read"
    typer.echo(f"Wrote {out}. {first} and correct it, then: auditor scan --config {name}")
    typer.echo(f"To fix it before any result is seen, first: auditor evidence register {name}")
