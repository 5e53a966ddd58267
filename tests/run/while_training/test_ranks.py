"""A job of several ranks: the same numbers as one alone, and a rank that dies is NOT_RUN, not a hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from auditor.report.record.audit_report import NOT_REPEATED
from tests import ROOT
from tests.quantifiers import none_of

Job = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Runs a job of n ranks and gives its report."""
    folder = tmp_path_factory.mktemp("ranks")
    with open(folder / "errors", "w+") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.run.while_training.rank_job"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert server.stdin is not None and server.stdout is not None

        def run(n: int, how: str = "lives") -> dict[str, Any]:
            assert server.stdin is not None and server.stdout is not None
            out = Path(tempfile.mkdtemp(dir=folder))
            print(json.dumps([str(out), n, how]), file=server.stdin, flush=True)
            ended = server.stdout.readline()
            assert ended and json.loads(ended) == [0] * n, (folder / "errors").read_text()[-2000:]
            found: dict[str, Any] = json.loads((out / "report.json").read_text())
            return found

        yield run
        server.stdin.close()
        server.wait(timeout=60)
        server.stdout.close()


@pytest.fixture(scope="module")
def alone(job: Job) -> dict[str, Any]:
    """The report of a job of one rank."""
    return job(1)


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in report.items() if k not in NOT_REPEATED}


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_the_report_of_several_ranks_is_that_of_one(job: Job, alone: dict[str, Any], n: int) -> None:
    together = job(n)
    assert without_times(alone) == without_times(together)
    assert sum(f["metric"] is not None for f in alone["findings"]) > 20


@pytest.mark.slow
def test_the_report_of_sharded_parameters_is_that_of_one_rank_with_all(job: Job, alone: dict[str, Any]) -> None:
    """By ``fully_shard`` over two ranks; that training goes on and weights are put back, the job asserts."""
    assert without_times(alone) == without_times(job(2, "sharded"))


@pytest.mark.slow
def test_a_resumed_job_of_several_ranks_ends_with_the_findings_of_one(job: Job, alone: dict[str, Any]) -> None:
    resumed = job(2, "resumed")
    assert resumed["training"].pop("resumed_after") == [1] and "resumed_after" not in alone["training"]
    assert without_times(alone) == without_times(resumed)


@pytest.mark.slow
def test_a_rank_that_dies_is_not_run_with_its_reason(job: Job) -> None:
    report = job(2, "dies")
    said = [f["reason"] for f in report["findings"] if f["outcome"] == "NOT_RUN"]
    assert said and any("Another rank did not answer" in reason for reason in said) and report["exit_code"] == 3


@pytest.mark.slow
def test_statistics_of_a_rank_are_not_audited_on_another(job: Job, alone: dict[str, Any]) -> None:
    """Rank 0's, as its checkpoint would have them; each rank has its own again afterwards, which the job asserts."""
    assert without_times(alone) == without_times(job(2, "statistics"))


@pytest.mark.slow
def test_a_probe_that_fails_on_one_rank_is_not_run_and_the_others_are_as_ever(job: Job, alone: dict[str, Any]) -> None:
    report = job(2, "one_sided")
    (one,) = [f for f in report["findings"] if f["probe"] == "one_sided"]
    assert one["outcome"] == "NOT_RUN" and one["value"] is None
    kept = [f for f in report["findings"] if f["probe"] not in ("one_sided", "training_audit")]
    assert kept == [f for f in alone["findings"] if f["probe"] != "training_audit"]


@pytest.mark.slow
def test_ranks_with_other_rows_are_not_run(job: Job) -> None:
    report = job(2, "other_rows")
    assert none_of(f["metric"] == "selection_rate" for f in report["findings"])
    assert any("different rows" in f["reason"] for f in report["findings"] if f["outcome"] == "NOT_RUN")
