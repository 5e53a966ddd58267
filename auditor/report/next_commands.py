"""The commands that the first page proposes, complete and accepted by the command line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath

from auditor.report.record.audit_report import AuditReport
from auditor.report.record.provenance_of_number import runs_code, to_copy

Flags = list[tuple[str, str]]
# How the file of a model that is fitted anew may end, by the format of the present one.
_FITTED_ANEW = {
    "auditor-model/1": (".pt",),
    "skops": (".skops",),
    "joblib file": (".joblib",),
    "pickle": (".pkl",),
    "XGBoost model": (".json", ".ubj"),
    "LightGBM model": (".txt",),
    "CatBoost model": (".cbm",),
}
# What the record of an audit does not hold but in its command, and the next command needs again.
_OF_MODEL_AND_ROWS = (
    "--text", "--image", "--features", "--classes", "--outputs", "--threshold", "--sensitive-file", "--join-on",
    "--bins", "--cluster", "--weight", "--probes", "--set", "--policy", "--config",
)  # fmt: skip


def repair_of(report: AuditReport) -> str:
    """The command that retrains the model into a file of the same kind; for other models, the list of mitigations."""
    data, model, told = report.data, report.model, _scan_flags(report)
    endings = _FITTED_ANEW.get(model.format)
    if told is None or endings is None or model.path is None or not model.classes:
        return "auditor mitigations"
    own = PurePath(model.path).suffix
    return _command(
        ["auditor", "mitigate", "reweighing", model.path],
        ("--train", data.train_path or "TRAIN"),
        ("--data", data.path or "DATA"),
        ("--target", data.target),
        ("--positive", data.positive),
        *(("--sensitive", name) for name in data.sensitive),
        *told,
        ("--out", "fairer" + (own if own in endings else endings[0])),
    )


def private_training_of(report: AuditReport) -> str:
    """The command for a private training on the same table rows; "" for other rows."""
    data, told = report.data, _scan_flags(report)
    if told is None or data.target is None or report.model.format not in _FITTED_ANEW:
        return ""
    if any(flag in ("--text", "--image") for flag, _ in told):
        return ""
    return _command(
        ["auditor", "train", data.train_path or "TRAIN"],
        ("--target", data.target),
        ("--positive", data.positive),
        *((flag, value) for flag, value in told if flag in ("--features", "--weight")),
        ("--dp-epsilon", "3"),
        ("--out", "private.pt"),
    )


def registration_of(report: AuditReport) -> str:
    """The command that registers the plan, or, if no configuration was used, the one that creates a configuration; ""
    for rows without such a command: a folder of media, or a database."""
    files = report.configuration.files if report.configuration is not None else ()
    own = next((file.path for file in files if file.role == "configuration"), None)
    if own is not None:
        return _command(["auditor", "register", own])
    data = report.data.path or "DATA.csv"
    return _command(["auditor", "init", data]) if PurePath(data).suffix and "://" not in data else ""


def _scan_flags(report: AuditReport) -> Flags | None:
    """What the audit was told of its model and rows; None where that runs code, which nobody is to copy unseen."""
    words = shlex.split(to_copy(report.environment.command))
    if runs_code(words):
        return None
    found: Flags = []
    for word, following in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if flag in _OF_MODEL_AND_ROWS:
            found.append((flag, value if equals else following))
        elif flag == "--copies-are-real":
            found.append((flag, ""))
    return found


def _command(words: Sequence[str], *flags: tuple[str, str | None]) -> str:
    """A command as a shell takes it, without flags whose value is None; a flag whose value is "" takes none."""
    more = [word for flag, value in flags if value is not None for word in (flag, value) if word]
    return shlex.join([*words, *more])
