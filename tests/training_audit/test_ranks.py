"""A job of several ranks: the same numbers as one alone, and a rank that dies is NOT_RUN, not a hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def job(out: Path, n: int, how: str = "lives") -> dict[str, Any]:
    """The report of a job of n ranks."""
    out.mkdir()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training_audit.rank_job", str(out), how],
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
