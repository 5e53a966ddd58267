"""Logs of agents as tables: what was called in each sample, and for whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from auditor.core.errors import DataError, UsageError
from auditor.judging.measurement import Outcome
from auditor.loading.job_specs import DataSpec, ModelSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_recorded
from auditor.loading.rows.logged_rows import NO_CALL, read_log_rows
from auditor.run.run_audit import run_audit
from probes.fairness.group_fairness import GroupFairness
from tests.toys import logs
from tests.toys.models import criterion

N = 600


def agent(to: Path, favoured: float, seed: int = 0, epochs: int = 1) -> Path:
    """An agent that approves seven cases of ten, and of women so many less; in every 50th it does not decide."""
    rng = np.random.default_rng(seed)
    groups = ["fm"[i % 2] for i in range(N)]
    chance = [0.7 - favoured * (g == "f") for g in groups]
    said = [None if i % 50 == 7 else "approve" if rng.random() < p else "deny" for i, p in enumerate(chance)]
    log = logs.agent_log(said, groups)
    for i, sample in enumerate(log["samples"]):
        sample |= {"id": i // epochs, "epoch": i % epochs + 1}
    return logs.write_archive(to / "agent.eval", log)


def outcome(path: Path) -> Outcome:
    """Of equal shares of approvals."""
    recorded = RecordedSpec(predicted="calls.decide.outcome")
    spec = DataSpec(path=str(path), recorded=recorded, sensitive=("sex",), positive="approve")
    model, data = load_recorded(ModelSpec(), spec)
    assert len(data) == N and NO_CALL in data.classes
    report = run_audit(model, data, [GroupFairness()], [criterion("demographic_parity_difference", "at_most", 0.1)])
    return next(f.outcome for f in report.findings if f.metric == "demographic_parity_difference" and f.criterion)


def test_samples_and_calls_are_rows_and_columns(tmp_path: Path) -> None:
    log = logs.agent_log(["approve", None], ["f", "m"])
    table = read_log_rows(logs.write_archive(tmp_path / "a.eval", log))
    assert table.to_pydict() == {
        "id": ["0", "1"], "epoch": [1.0, 1.0], "sex": ["f", "m"], "score.match": [1.0, 1.0],
        "calls.look_up.case": ["0", "1"], "calls.decide.outcome": ["approve", NO_CALL],
        "calls.look_up": [1, 1], "calls.decide": [1, 0],
    }  # fmt: skip


def test_an_agent_that_favours_a_group_is_flagged_and_a_fair_one_is_not(tmp_path: Path) -> None:
    assert outcome(agent(tmp_path, 0.3)) is Outcome.FAIL
    (tmp_path / "fair").mkdir()
    assert outcome(agent(tmp_path / "fair", 0.0)) is not Outcome.FAIL


@pytest.mark.grid
@pytest.mark.parametrize("start", range(0, 40, 10))
def test_fair_agents_are_hardly_ever_flagged(start: int, tmp_path: Path) -> None:
    flagged = 0
    for seed in range(start, start + 10):
        (tmp_path / str(seed)).mkdir()
        flagged += outcome(agent(tmp_path / str(seed), 0.0, seed)) is Outcome.FAIL
    assert flagged <= 2


def test_repeats_need_their_clusters(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--cluster id"):
        outcome(agent(tmp_path, 0.0, epochs=2))


@pytest.mark.parametrize("content", [b"PK\x03\x04 nothing", b"no archive"])
def test_a_file_that_is_no_log_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.eval").write_bytes(content)
    spec = DataSpec(path=str(tmp_path / "a.eval"), recorded=RecordedSpec(predicted="calls.decide.outcome"))
    with pytest.raises(DataError):
        load_recorded(ModelSpec(), spec)
