"""Ordinary files as their usual tools write them: each ends in an audit, bare or by the line that a refusal names."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import auditor
from cli.commands import app
from tests.quantifiers import all_of
from tests.toys.ordinary import NUMBERS, ORDINARY, Ordinary

# What a user puts for the names that a refusal leaves open.
MEANT = {"--features": ",".join(NUMBERS), "--classes": "0,1"}
PROBES = "group_fairness,regression_fairness"
# Which need a line, and which: a flag, or the call that saves the model as data.
NAMED = {
    "ONNX of scikit-learn, ZipMap": "--features",
    "ONNX of scikit-learn, no ZipMap": "--features",
    "scikit-learn logistic, skops": "--features",
    "ONNX of a torch network": "--features --outputs --classes",
    "torch state_dict, .pt": "--architecture --architecture-args --classes --features",
    "torch state_dict, legacy .pth": "--architecture --architecture-args --classes --features",
    "torch checkpoint with an optimiser": "--architecture --architecture-args --classes --features",
    "safetensors of a network": "--architecture --architecture-args --classes --features",
    "torch state_dict of a small CNN": "--architecture --architecture-args --classes",
    "LoRA adapter of a classifier": "--base",
    "TorchScript": "--allow-code --classes --features",
}
# Which take more than that, and why.
EXCEPTIONS = {
    "torch module, pickled whole": "its code is in the file: it is saved as weights, and then asked about like those",
}
# Which no probe of these asks anything, with the reason of each.
NOT_ASKED = {"Hugging Face causal language model", "Hugging Face encoder-decoder (T5)", "Hugging Face token classifier"}


@dataclass(frozen=True)
class Ended:
    """How a scan ended: its code, what it said, and its record where it made one."""

    code: int
    said: str
    findings: Sequence[dict[str, Any]]


def scan(file: Ordinary, path: Path, flags: Sequence[str], out: Path) -> Ended:
    which = ["--predictions", str(path)] if file.path.name.startswith("predictions") else [str(path)]
    arguments = [*which, *file.data, *flags, "--probes", PROBES, "--seed", "0", "--format", "json", "--out", str(out)]
    result: Result = CliRunner().invoke(app, ["scan", *arguments])
    record = out / "report.json"
    findings = json.loads(record.read_text())["findings"] if record.exists() else []
    return Ended(result.exit_code, " ".join(result.output.split()), findings)


def followed(message: str, folder: Path, path: Path) -> tuple[Path, list[str], str]:
    """(the file to name, the flags to add, what was named) where the first thing that a refusal says to do is done."""
    call = re.search(r"joblib\.load\(path\)\.[a-z_.]+\('(model\.[a-z]+)'\)", message)
    if call:
        import joblib  # type: ignore[import-untyped]

        exec(call[0].replace(call[1], str(folder / call[1])), {"joblib": joblib, "path": str(path)})
        return folder / call[1], [], call[0]
    flags: list[str] = []
    meant = {**MEANT, "--base": str(folder / "base")}
    for clause in re.findall(r"\b(?:add|folder with) (--.*?)(?:; |, or |\. |\.$|$)", message):
        # Of two flags with "or" between them, the first.
        words = shlex.split(re.sub(r" or --[a-z]+ [a-z]+", "", clause).replace(", and of a table", ""))
        for flag, value in pairwise([*words, ""]):
            if flag.startswith("--"):
                flags += [flag] if value.startswith("--") or not value else [flag, meant.get(flag, value)]
    return path, flags, " ".join(flag for flag in flags if flag.startswith("--"))


@pytest.mark.grid
@pytest.mark.parametrize("name", sorted(ORDINARY))
def test_it_ends_in_an_audit(name: str, tmp_path: Path) -> None:
    file = ORDINARY[name](tmp_path)
    path, flags, named = file.path, [], ""
    ended = scan(file, path, flags, tmp_path / "out")
    if name in EXCEPTIONS:
        assert ended.code == 4 and "torch.save(torch.load(path, weights_only=False).state_dict()" in ended.said
        return
    if ended.code not in (0, 1, 3):
        path, flags, named = followed(ended.said, tmp_path, file.path)
        ended = scan(file, path, flags, tmp_path / "out")
    assert ended.code in (0, 1, 3), ended.said
    assert named == NAMED.get(name, "")
    measured = [f for f in ended.findings if f["pillar"] != "intake"]
    if name in NOT_ASKED:
        said = ("this model is a", "Needs true labels")
        assert all_of(f["outcome"] == "NOT_APPLICABLE" and any(w in f["reason"] for w in said) for f in measured)
    else:
        assert all_of(f["outcome"] != "NOT_RUN" for f in measured)
        assert any(f["value"] is not None for f in measured), measured
    if file.answers is not None:
        given = {k[2:].replace("-", "_"): v for k, v in pairwise([*flags, ""]) if k.startswith("--")}
        given = {k: True if v.startswith("--") or not v else v for k, v in given.items()}
        if "architecture_args" in given:
            given["architecture_args"] = json.loads(given["architecture_args"])
        model = auditor.load_model(path, **given)
        found = model.predict_proba(file.rows) if model.kind == "classifier" else model.predict(file.rows)
        assert np.abs(np.asarray(found) - file.answers).max() < 1e-6


def test_seven_of_eight_load_bare_or_by_the_one_line_named() -> None:
    """28 of 32 in the words of the aim; here of all of them, and the rest with their reasons."""
    for name in sorted(ORDINARY):
        print(f"{name:45} {EXCEPTIONS.get(name) or NAMED.get(name, 'bare')}")
    assert set(EXCEPTIONS) | set(NAMED) <= set(ORDINARY) and not set(EXCEPTIONS) & set(NAMED)
    assert len(ORDINARY) >= 32 and len(ORDINARY) - len(EXCEPTIONS) >= 28 / 32 * len(ORDINARY)
