"""A job of several ranks: the same numbers as one alone, and a rank that dies is NOT_RUN, not a hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.quantifiers import none_of


def job(out: Path, n: int, how: str = "lives") -> dict[str, Any]:
    """The report of a job of n ranks."""
    out.mkdir()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.run.while_training.rank_job", str(out), how],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(n), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]
    for rank in ranks:
        _, err = rank.communicate(timeout=300)
        assert rank.returncode == 0, err[-2000:]
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in report.items() if k not in ("created", "duration_s")}


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
def test_the_report_of_several_ranks_is_that_of_one(tmp_path: Path, n: int) -> None:
    alone, together = (job(tmp_path / str(k), k) for k in (1, n))
    assert without_times(alone) == without_times(together)
    assert sum(f["metric"] is not None for f in alone["findings"]) > 20


@pytest.mark.slow
def test_a_rank_that_dies_is_not_run_with_its_reason(tmp_path: Path) -> None:
    report = job(tmp_path / "dies", 2, "dies")
    said = [f["reason"] for f in report["findings"] if f["outcome"] == "NOT_RUN"]
    assert said and any("Another rank did not answer" in reason for reason in said) and report["exit_code"] == 3


@pytest.mark.slow
def test_statistics_of_a_rank_are_not_audited_on_another(tmp_path: Path) -> None:
    """Rank 0's, as its checkpoint would have them; each rank has its own again afterwards, which the job asserts."""
    alone, together = job(tmp_path / "1", 1), job(tmp_path / "2", 2, "statistics")
    assert without_times(alone) == without_times(together)


@pytest.mark.slow
def test_a_probe_that_fails_on_one_rank_is_not_run_and_the_others_are_as_ever(tmp_path: Path) -> None:
    alone, report = job(tmp_path / "1", 1), job(tmp_path / "2", 2, "one_sided")
    (one,) = [f for f in report["findings"] if f["probe"] == "one_sided"]
    assert one["outcome"] == "NOT_RUN" and one["value"] is None
    kept = [f for f in report["findings"] if f["probe"] not in ("one_sided", "training_audit")]
    assert kept == [f for f in alone["findings"] if f["probe"] != "training_audit"]


@pytest.mark.slow
def test_ranks_with_other_rows_are_not_run(tmp_path: Path) -> None:
    report = job(tmp_path / "2", 2, "other_rows")
    assert none_of(f["metric"] == "selection_rate" for f in report["findings"])
    assert any("different rows" in f["reason"] for f in report["findings"] if f["outcome"] == "NOT_RUN")
