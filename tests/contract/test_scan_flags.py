"""The option contract of ``scan``: every flag has a row, a scan in which what it says makes a difference.

A scan without the flag, or with its first value, is compared with one that has it: in its findings, its record, its
exit code, what it prints or what it writes. A new flag without a row, or without a place in a list, fails.
"""

from __future__ import annotations

import json
import random
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pytest
from typer.testing import CliRunner

from auditor.run.scan_options import ScanOptions, flags
from cli.commands import app
from tests import ROOT
from tests.golden.ruler import _model, _table, normalize_record, normalize_text
from tests.quantifiers import none_of

Aspect = Literal["findings", "record", "exit", "printed", "files", "page"]

BASE = "scan model.pt --data test.csv --target approved --positive yes --sensitive sex --device cpu"
TEAMS = BASE.replace("--sensitive sex", "--sensitive team") + " --probes group_fairness"
FUNCTION = "scan --predict guesses:chance --data test.csv --target approved --positive yes --sensitive sex --device cpu"
TABLE = "scan --predictions answers.csv --target approved --positive yes --sensitive sex"
GUESSES = """\
import numpy as np


def chance(X):
    p = 1 / (1 + np.exp(-2 * X["income"].to_numpy()))
    return np.stack([1 - p, p], axis=1)


def logit(X):
    z = 2 * X.iloc[:, 0].to_numpy()
    return np.stack([-z, z], axis=1)
"""


@dataclass(frozen=True)
class Row:
    """``base``: a scan; ``without`` and ``given``: what is added to it in turn; ``differs``: where the two differ."""

    given: str
    without: str = ""
    base: str = f"{BASE} --probes group_fairness"
    differs: Aspect = "findings"


ROWS: dict[str, Row] = {
    "model": Row("scan other.pt", "scan model.pt", base=f"{BASE[len('scan model.pt') :]} --probes group_fairness"),
    "data": Row("--data train.csv"),
    "train": Row("--train train.csv", base=f"{BASE} --probes label_conflicts"),
    "target": Row("--target again"),
    "positive": Row("--positive no"),
    "sensitive": Row("--sensitive site"),
    "bins": Row("--bins debt=quantiles:3", "--bins debt=0", base=f"{BASE} --sensitive debt --probes group_fairness"),
    "cluster": Row("--cluster person"),
    "cluster_at_most": Row("--cluster-at-most 50", base=f"{BASE} --cluster person --probes group_fairness"),
    "weight": Row("--weight w"),
    "weight_at_most": Row("--weight-at-most 50", base=f"{BASE} --weight w --probes group_fairness"),
    "copies_are_real": Row(
        "--copies-are-real", base=BASE.replace("test.csv", "copied.csv") + " --probes group_fairness"
    ),
    "no_controls": Row("--no-controls", differs="record"),
    "stream": Row("--stream", base=f"{BASE} --probes robustness"),
    "sensitive_file": Row(
        "--sensitive-file groups.csv --join-on id", "--sensitive-file teams.csv --join-on id",
        base=TEAMS,
    ),
    "join_on": Row(
        "--join-on id", "--join-on person",
        base=TEAMS + " --sensitive-file groups.csv",
    ),
    "features": Row(
        "--features income,debt", "--features debt,income",
        base=FUNCTION.replace("chance", "logit") + " --classes no,yes --outputs logits --probes group_fairness",
    ),
    "classes": Row("--classes no,yes", "--classes yes,no", base=f"{FUNCTION} --probes group_fairness"),
    "outputs": Row(
        "--outputs logits", "--outputs probabilities", differs="printed",
        base=FUNCTION.replace("chance", "logit") + " --classes no,yes --features income --probes group_fairness",
    ),
    "predict": Row(
        "--predict guesses:chance", "--predict guesses:logit --outputs logits",
        base=FUNCTION.replace("--predict guesses:chance", "--classes no,yes --features income --probes performance"),
    ),
    "threshold": Row("--threshold 0.9"),
    "probes": Row("--probes performance"),
    "predictions": Row("--predictions answers.csv", "--predictions others.csv",
        base=TABLE.replace("--predictions answers.csv ", "") + " --predicted said --probes group_fairness"),
    "log": Row("--log log.jsonl", "--log more.jsonl", base="scan --probes recorded_evaluation"),
    "predicted": Row("--predicted said", "--predicted meant", base=f"{TABLE} --probes group_fairness"),
    "score": Row("--score p", "--score q", base=f"{TABLE} --probes score_fairness"),
    "loss": Row("--loss loss", base=f"{TABLE} --score p --train others.csv --probes membership_inference"),
    "reference": Row("--reference model.pt", "--reference other.pt", base=f"{BASE} --probes change"),
    "ood": Row("--ood far.csv", base=f"{BASE} --probes out_of_distribution"),
    "policy": Row("--policy nyc-ll144", differs="record"),
    "as_of": Row(
        "--as-of 2019-01-31", "--as-of 2026-01-31", differs="record",
        base=f"{BASE} --probes group_fairness --policy gdpr",
    ),
    "out": Row("--out elsewhere", differs="files"),
    "format": Row("--format csv,sarif", differs="files"),
    "lang": Row("--lang de", differs="page"),
    "bundle": Row("--bundle audit.zip", differs="files"),
    "sign": Row("--sign auditor.key", base=f"{BASE} --probes group_fairness --bundle audit.zip", differs="files"),
    "include_rows": Row("--include-rows", base=f"{BASE} --probes group_fairness --bundle audit.zip", differs="files"),
    "redact": Row("--redact", base=f"{BASE} --probes group_fairness --bundle audit.zip", differs="files"),
    "history": Row("--history", differs="files"),
    "db": Row("--db other.db", base=f"{BASE} --probes group_fairness --history", differs="files"),
    "campaign": Row("--campaign spring", base=f"{BASE} --probes group_fairness --history", differs="record"),
    "campaign_looks": Row(
        "--campaign-looks 4", base=f"{BASE} --probes group_fairness --history --campaign spring", differs="record"
    ),
    "json_": Row("--json", differs="printed"),
    "quiet": Row("--quiet", differs="printed"),
    "seed": Row("--seed 5", base=f"{BASE} --probes robustness"),
    "error_rate": Row("--error-rate 0.2"),
    "multiplicity": Row("--multiplicity none"),
    "max_seconds": Row("--max-seconds 0.000001", differs="printed"),
    "max_memory": Row("--max-memory 50MiB", differs="printed"),
    "allow_inconclusive": Row(
        "--allow-inconclusive", base=f"{BASE.replace('model.pt', 'other.pt')} --probes group_fairness", differs="exit"
    ),
}  # fmt: skip

# Flags that no row varies: the file of tests that does.
ELSEWHERE = {
    "check_predictions": "tests/loading/rows/test_check_predictions.py",
    "model_name": "tests/cli/test_endpoint.py",
    "api_key_env": "tests/cli/test_endpoint.py",
    "max_calls": "tests/cli/test_endpoint.py",
    "concurrency": "tests/models/endpoint/test_client.py",
    "thinking_tokens": "tests/models/endpoint/test_scanned.py",
    "reasoning_effort": "tests/models/endpoint/test_scanned.py",
    "allow_remote": "tests/cli/test_endpoint.py",
    "query": "tests/loading/test_adapters.py",
    "generated": "tests/loading/rows/test_recorded.py",
    "text": "tests/cli/test_language_scans.py",
    "image": "tests/loading/rows/test_folders.py",
    "task": "tests/models/test_regression.py",
    "probe": "tests/run/test_answering_process.py",
    "benchmark": "tests/probes/language/test_options.py",
    "benchmark_filter": "tests/probes/language/test_options.py",
    "scorer": "tests/loading/rows/test_recorded.py",
    "calibration": "tests/probes/language/test_calibration.py",
    "judge": "tests/probes/language/test_text_judge.py",
    "judge_name": "tests/probes/language/test_text_judge.py",
    "judge_key_env": "tests/probes/language/test_text_judge.py",
    "chat": "tests/probes/language/test_chat.py",
    "system": "tests/probes/language/test_chat.py",
    "few_shot": "tests/probes/language/test_chat.py",
    "quantize": "tests/probes/performance/test_derived.py",
    "decoder": "tests/cli/test_marking.py",
    "embedder": "tests/run/test_answering_process.py",
    "registration": "tests/evidence/test_registration.py",
    "timestamp": "tests/evidence/test_timestamp.py",
    "device": "tests/models/test_placement.py",
    "executor": "tests/training/test_execute.py",
    "address": "tests/training/test_execute.py",
    "dtype": "tests/loading/test_number_formats.py",
    "device_map": "tests/models/test_placement.py",
    "base": "tests/loading/test_intake.py",
    "architecture": "tests/loading/test_torch_files.py",
    "architecture_args": "tests/loading/test_torch_files.py",
    "generate": "tests/loading/test_generators.py",
    "allow_code": "tests/loading/test_intake.py",
    "trust_pickle": "tests/loading/test_intake.py",
    "trust_anchors": "tests/run/test_model_signature.py",
    "model_signer": "tests/run/test_model_signature.py",
    "allow_unsandboxed": "tests/run/test_sandbox.py",
    "debug": "tests/loading/sandbox/test_secrets.py",
}


def test_every_flag_has_a_row_or_a_file_of_tests() -> None:
    assert sorted(flags().keys() - ROWS.keys() - ELSEWHERE.keys()) == [], "write a row"
    assert sorted((ROWS.keys() | ELSEWHERE.keys()) - flags().keys()) == []
    assert sorted(ROWS.keys() & ELSEWHERE.keys()) == []
    # The model stands without a flag.
    assert [name for name, own in ROWS.items() if spelled(name) not in own.given] == ["model"]


@pytest.mark.parametrize(("name", "file"), ELSEWHERE.items())
def test_what_is_varied_elsewhere_is_given_there(name: str, file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"{spelled(name)}\b|\"{name}\"|\b{name}=", text), f"{file} does not give {spelled(name)}"


DEFAULTS: dict[str, Any] = {
    "max_calls": 10_000, "concurrency": 4, "thinking_tokens": 0, "chat": "auto", "few_shot": 0,
    "policy": ("auditor-default-3",),
    "out": "audit-report", "format": ("html", "json"), "lang": "en", "seed": 0, "device": "auto", "executor": "local",
    "dtype": "auto", "error_rate": 0.05, "multiplicity": "holm", "max_seconds": 600.0, "architecture_args": {},
}  # fmt: skip


def test_every_default_is_nothing_or_the_one_that_is_written_here() -> None:
    options = ScanOptions()
    found = {name: getattr(options, name) for name in flags() if name != "max_memory"}
    assert {name: value for name, value in found.items() if value not in (None, False, ())} | {
        name: found[name] for name in DEFAULTS
    } == DEFAULTS


def spelled(name: str) -> str:
    """A flag as it is typed."""
    return flags()[name].spelled or f"--{name.replace('_', '-')}"


# ---- the scans -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, another, their rows, and a function of the user's own."""
    from auditor.evidence.signing import make_key
    from auditor.models.saved_models import save

    folder = tmp_path_factory.mktemp("flags")
    draw = random.Random(7)
    for name, seed in (("train", 1), ("test", 2)):
        head, *lines = _table(seed).splitlines()
        more = [
            f"{line},{draw.choice('ns')},{draw.choice(['yes', 'no'])},{i},{i // 4},{1 + i % 3}"
            for i, line in enumerate(lines)
        ]
        write(folder / f"{name}.csv", f"{head},site,again,id,person,w", *more)
        if name == "test":
            write(folder / "copied.csv", f"{head},site,again,id,person,w", *more, *more[:120])
            truth = [line.split(",") for line in lines]
    said = [(row[2], row[3], draw.choice(["yes", "no"]), draw.choice(["yes", "no"]), draw.random()) for row in truth]
    header = "sex,approved,said,meant,p,q,loss"
    for name, turned in (("answers", False), ("others", True)):
        rows = [
            f"{sex},{y},{b if turned else a},{a if turned else b},{p:.3f},{p * p:.3f},{(p - 0.5) ** 2 + 0.1:.4f}"
            for sex, y, a, b, p in said
        ]
        write(folder / f"{name}.csv", header, *rows)
    for name, k in (("groups", 2), ("teams", 3)):
        write(folder / f"{name}.csv", "id,person,team", *(f"{i},{239 - i},t{i % k}" for i in range(240)))
    write(folder / "far.csv", "income,debt,sex", *(f"{90 + i},{-90 - i},f" for i in range(80)))
    for name, k in (("log", 2), ("more", 3)):
        write(folder / f"{name}.jsonl", *(json.dumps({"id": i, "score": int(i % k > 0)}) for i in range(60)))
    write(folder / "guesses.py", GUESSES)
    save(_model(0.6), folder / "model.pt")
    save(_model(0.1), folder / "other.pt")
    make_key(folder / "auditor.key")
    return folder


def write(path: Path, *lines: str) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def here(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with those files, and nothing that another scan has left."""
    monkeypatch.delenv("AUDITOR_DB", raising=False)
    yield tmp_path
    sys.modules.pop("guesses", None)


def scanned(files: Path, folder: Path, line: str) -> Mapping[Aspect, str]:
    """What a scan in a folder of its own comes to."""
    folder.mkdir()
    for path in files.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as at, patch.object(sys, "argv", ["auditor", *line.split()]):
        at.chdir(folder)
        at.syspath_prepend(str(folder))
        done = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(app, line.split())
    reports = sorted(folder.glob("*/report.json"))
    record = normalize_record(json.loads(reports[0].read_text())) if reports else {}
    for said in ("configuration", "asked"):
        record.pop(said, None)
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    written -= {path.name for path in files.iterdir()}
    inside = [f"audit.zip/{name}" for name in unpacked(folder / "audit.zip")]
    pages = sorted(folder.glob("*/report.html"))
    page = re.search(r"<html lang=\"(\w+)\"", pages[0].read_text()) if pages else None
    return {
        "findings": json.dumps(record.get("findings")),
        "record": json.dumps(record),
        "exit": str(done.exit_code),
        "printed": normalize_text(done.output, str(folder)),
        "files": json.dumps(sorted([*written, *inside])),
        "page": page[1] if page else "",
    }


def unpacked(archive: Path) -> list[str]:
    """The names of a bundle's parts, and the head of the rows among them."""
    if not archive.exists():
        return []
    with zipfile.ZipFile(archive) as parts:
        names = parts.namelist()
        rows = parts.read("rows.csv").decode().splitlines()[0] if "rows.csv" in names else ""
    return [*names, rows]


@pytest.mark.slow(quick=True)
@pytest.mark.skipif(sys.platform != "linux", reason="measuring processes are forked")
@pytest.mark.grid(every=6)
@pytest.mark.parametrize("name", ROWS)
def test_each_flag_of_a_scan_makes_a_difference(name: str, files: Path, here: Path) -> None:
    own = ROWS[name]
    found = []
    for i, more in enumerate((own.without, own.given)):
        line = f"{more} {own.base}" if name == "model" else f"{own.base} {more}"
        found.append(scanned(files, here / str(i), line.strip()))
    if own.differs in ("findings", "record"):
        assert none_of(each[own.differs] in ("null", "{}") for each in found), found[0]["printed"] + found[1]["printed"]
    assert found[0][own.differs] != found[1][own.differs], f"{spelled(name)} is ignored"
