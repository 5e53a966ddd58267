"""Sweeps and detectors by whoever does the tasks: the same models and records, and what is finished is not lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.loading.job_specs import DataSpec, Job, Limits, MitigationSpec, ModelSpec
from auditor.models.saved_models import save
from auditor.run.sweep_tasks import made_by, sent_points
from auditor.training import stack_tasks
from auditor.training.meter import Meter
from auditor.training.task_executor import Executor, Kept, do
from cli.commands import app
from tests.mitigations.planted_rows import biased_rows, trained
from tests.training.in_this_process import InThisProcess
from tests.training.test_execute import Backwards, Dies


def rows_and_model(folder: Path) -> Path:
    """A folder with a bundle, the rows it learned from and others."""
    folder.mkdir(exist_ok=True)
    for name, seed in (("train", 1), ("test", 2)):
        rows = biased_rows(200, seed)
        assert isinstance(rows.X, pd.DataFrame)
        rows.X.assign(y=rows.y_true).to_csv(folder / f"{name}.csv", index=False)
    save(trained(biased_rows(200, 1), epochs=2), folder / "old.pt")
    return folder


def swept(folder: Path, out: Path, *more: str, alphas: str = "0,1") -> Any:
    """What the command says of a sweep, by default of two points."""
    return CliRunner().invoke(app, [
        "tradeoff", "correlation-remover", str(folder / "old.pt"), "--sweep", f"alpha={alphas}",
        "--train", str(folder / "train.csv"), "--data", str(folder / "test.csv"), "--target", "y", "--positive", "1",
        "--sensitive", "group", "--probes", "group_fairness", "--out", str(out), *more,
    ])  # fmt: skip


def digest_of(out: Path) -> str:
    """Of every model and record of a sweep, but for when, where, how long and for how much energy."""
    points = sorted(p.parent.name for p in out.glob("*/model.pt"))
    said = [hashlib.sha256((out / name / "model.pt").read_bytes()).hexdigest() for name in points]
    for name in ("unmitigated", *points):
        report = json.loads((out / name / "report.json").read_text())
        for volatile in ("created", "duration_s", "energy"):
            report.pop(volatile, None)
        report["environment"].pop("command", None)
        said.append(json.dumps(report, sort_keys=True))
    record = json.loads((out / "tradeoff.json").read_text())
    record.pop("created", None)
    text = json.dumps([said, record], sort_keys=True)
    return hashlib.sha256(text.replace(str(out), "OUT").encode()).hexdigest()


def job(folder: Path, alpha: float, **spec: Any) -> Job:
    return Job(
        model=ModelSpec(path=str(folder / "old.pt"), device="cpu", dtype="float32"),
        data=DataSpec(path=str(folder / "train.csv"), target="y", positive="1", sensitive=("group",)),
        probes=(),
        seed=0,
        limits=Limits(memory_bytes=8 << 30, seconds=100.0),
        with_intake=False,
        mitigation=MitigationSpec(
            **{
                "name": "correlation_remover",
                "target": "mitigations.rows.correlation_remover:CorrelationRemover",
                "out": "",
                "options": {"alpha": alpha},
            }
            | spec
        ),
    )


@pytest.mark.slow
def test_a_sweep_is_the_same_by_tasks_and_where_a_cluster_is_lost_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, by = rows_and_model(tmp_path / "rows"), list[Executor]()

    @contextmanager
    def chosen(executor: str, address: str | None) -> Iterator[Kept | None]:
        yield Kept(by[0], tmp_path / "tasks") if by else None

    monkeypatch.setattr("cli.tradeoff.chosen_executor", chosen)
    here = swept(folder, tmp_path / "here")
    assert here.exit_code in (0, 1, 3), here.output
    (tmp_path / "tasks").mkdir()
    by[:] = [Dies(after=1)]
    lost = swept(folder, tmp_path / "there")
    assert lost.exit_code == 2 and lost.stderr.splitlines()[-1] == "auditor: A node was lost.", lost.output
    assert sorted(p.parent.name for p in (tmp_path / "there").glob("*/model.pt")) == ["alpha=1"]
    asked = Backwards()
    by[:] = [asked]
    there = swept(folder, tmp_path / "there")
    assert (there.exit_code, asked.n) == (here.exit_code, 1), there.output
    assert there.stdout.count("made elsewhere") == 1 and " made (" not in there.stdout
    assert digest_of(tmp_path / "there") == digest_of(tmp_path / "here")
    assert list((tmp_path / "tasks").glob("task-*")) == []
    taken = json.loads((tmp_path / "there" / "alpha=0" / "point.json").read_text())["energy"]
    assert taken["of"] == "training" and taken["cpu_s"] > 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows_and_model(tmp_path_factory.mktemp("rows"))


def test_what_is_more_than_data_is_sent_nowhere(folder: Path) -> None:
    plain = job(folder, 1.0)
    assert plain.data is not None and plain.mitigation is not None
    sent = sent_points([plain])
    assert sent is not None and sent.kind == "point" and len(sent.each) == 1
    # Neither where things lie here, nor where the model is to be written.
    assert str(folder).encode() not in sent.shared + sent.each[0]
    other = str(folder / "test.csv")
    for more in (
        replace(plain, model=replace(plain.model, code_folder=str(folder))),
        replace(plain, model=replace(plain.model, allow_code=True)),
        replace(plain, model=replace(plain.model, trust_pickle=True)),
        replace(plain, model=replace(plain.model, path=str(folder))),
        replace(plain, model=replace(plain.model, base=other)),
        replace(plain, data=replace(plain.data, sensitive_file=other)),
        replace(plain, data=replace(plain.data, path=str(folder))),
        replace(plain, data=None),
        replace(plain, mitigation=None),
        job(folder, 1.0, target="mine:Own"),
        job(folder, 1.0, options={"lexicon": other}),
        job(folder, 1.0, checkpoint=other),
    ):
        assert sent_points([plain, more]) is None, more


def test_another_option_seed_row_or_model_is_another_task(folder: Path, tmp_path: Path) -> None:
    plain = job(folder, 1.0)
    assert plain.data is not None
    (tmp_path / "train.csv").write_bytes((folder / "train.csv").read_bytes() + b"\n")
    (tmp_path / "old.pt").write_bytes((folder / "old.pt").read_bytes() + b"\n")
    others = [
        plain,
        job(folder, 0.5),
        replace(plain, seed=1),
        replace(plain, data=replace(plain.data, path=str(tmp_path / "train.csv"))),
        replace(plain, model=replace(plain.model, path=str(tmp_path / "old.pt"))),
    ]
    tasks = [sent for each in others if (sent := sent_points([each])) is not None]
    assert len({(each.shared, *each.each) for each in tasks}) == len(others)


def test_a_refusal_over_there_is_what_it_is_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = sent_points([job(folder, 1.0)])
    assert sent is not None

    def refuses(error: Exception) -> Any:
        def mitigate(job: Job, *, meter: Meter) -> tuple[str, ...]:
            assert job.model.path is not None and Path(job.model.path).name == "old.pt"
            assert job.data is not None and Path(job.data.path).read_bytes() == (folder / "train.csv").read_bytes()
            raise error

        return mitigate

    monkeypatch.setattr("auditor.run.parent_process.mitigate", refuses(ModelError("It diverged.")))
    ((_, found),) = made_by(InThisProcess(), sent)
    assert isinstance(found, ModelError) and str(found) == "It diverged."
    monkeypatch.setattr("auditor.run.parent_process.mitigate", refuses(DataError("No rows.", code="AUD-DATA-UNUSABLE")))
    with pytest.raises(DataError, match=r"^No rows\.$") as told:
        list(made_by(InThisProcess(), sent))
    assert told.value.code == "AUD-DATA-UNUSABLE"
    monkeypatch.setattr(stack_tasks, "versions", lambda: {"torch": "0"})
    with pytest.raises(UsageError, match=r"A worker has torch 0 and .*: install the same version on both"):
        do("point", sent.shared, sent.each[0])
    for bad in (b"", b"{}\n", sent.shared[:-1], sent.each[0]):
        with pytest.raises(UsageError, match="no task of this version"):
            do("point", bad, sent.each[0])
