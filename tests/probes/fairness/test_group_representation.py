"""Representation: counts against pandas, shares against a table, and the error rates of what is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy

from auditor.core.errors import ConfigError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.profiles import DATA_PROFILE
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rates import RateTable
from probes.fairness.group_representation import Representation
from tests.quantifiers import all_of

CRITERIA = load_criteria(DATA_PROFILE)


def table(n: int, seed: int, p: float = 0.4, holes: tuple[float, float] = (0.0, 0.0)) -> pd.DataFrame:
    """People of whom a share ``p`` is female, and whose income is missing at the rates of women and men."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"sex": np.where(rng.random(n) < p, "f", "m"), "race": rng.choice(["a", "b", "c"], n)})
    missing = rng.random(n) < np.where(frame.sex == "f", *holes)
    return frame.assign(income=np.where(missing, np.nan, rng.normal(size=n)), label=rng.integers(0, 2, n))


def rows_of(frame: pd.DataFrame, *sensitive: str) -> AuditData:
    return AuditData.from_arrays(
        frame[["income"]], frame.label, classes=("0", "1"), sensitive_features=frame[list(sensitive or ("sex", "race"))]
    )


def measured(frame: pd.DataFrame, *sensitive: str, **options: Any) -> list[Measurement]:
    model: Any = None
    return Representation(**options).measure(model, rows_of(frame, *sensitive), np.random.default_rng(0))


def of(found: list[Measurement], metric: str) -> list[Measurement]:
    return [m for m in found if m.metric == metric]


def test_counts_are_those_of_pandas() -> None:
    frame = table(500, 0, holes=(0.2, 0.1))
    found = measured(frame)
    for by in ("sex", "race", ["sex", "race"]):
        sizes = {str(k): int(n) for k, n in frame.groupby(by).size().items()}
        own = [m for m in of(found, "group_share") if list(m.group) == ([by] if isinstance(by, str) else by)]
        assert sorted(m.estimate.successes for m in own) == sorted(sizes.values())  # type: ignore[union-attr]
        assert all_of(m.estimate.n == 500 for m in own)  # type: ignore[union-attr]
        smallest = next(m for m in of(found, "smallest_group_rows") if m.sensitive == tuple(own[0].group))
        assert smallest.estimate.value == min(sizes.values())
    rates = frame.income.isna().groupby(frame.sex).mean()
    gap = next(m for m in of(found, "missing_rate_difference") if m.sensitive == ("sex",))
    assert gap.estimate.value == pytest.approx(np.ptp(rates))
    by_label = frame.income.isna().groupby(frame.label).mean()
    gap = next(m for m in of(found, "missing_rate_difference") if not m.sensitive)
    assert gap.estimate.value == pytest.approx(np.ptp(by_label)) and gap.at == {"by": "label"}


def test_one_missing_share_has_the_p_value_of_fishers_test_up_to_its_one_side() -> None:
    frame = table(400, 3, holes=(0.15, 0.05))
    gap = next(m for m in of(measured(frame), "missing_rate_difference") if m.sensitive == ("sex",))
    crossed = pd.crosstab(frame.income.isna(), frame.sex).to_numpy()
    fisher = scipy.stats.fisher_exact(crossed).pvalue
    assert gap.estimate.p_value(0.0, "greater") < 10 * fisher and gap.estimate.lower(0.05) > 0.0


def test_shares_are_held_against_a_table_with_intersections(tmp_path: Path) -> None:
    frame, path = table(1_000, 1), tmp_path / "shares.csv"
    path.write_text("sex,race,share\nf,,0.5\nm,,0.5\nf,a,0.3\nf,b,0.2\nm,a,0.2\nm,b,0.2\nm,d,0.1\n", encoding="utf-8")
    found = {m.sensitive: m for m in of(measured(frame, shares=str(path)), "representation_shortfall")}
    women = float((frame.sex == "f").mean())
    assert found[("sex",)].estimate.value == pytest.approx(abs(0.5 - women))
    own = frame.groupby(["sex", "race"]).size() / 1_000
    short = {("f", "a"): 0.3, ("f", "b"): 0.2, ("m", "a"): 0.2, ("m", "b"): 0.2, ("m", "d"): 0.1}
    worst = max(share - own.get(group, 0.0) for group, share in short.items())
    assert found[("sex", "race")].estimate.value == pytest.approx(worst)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sex,share\nf,0.5\nm,0.4\n", "add up"),
        ("sex,share\nf,0.5\nf,0.5\n", "twice"),
        ("sex,share\nf,50\nm,50\n", "from 0 to 1"),
        ("sex,share\nf,half\nm,half\n", "from 0 to 1"),
        ("gender,share\nf,1\n", "gender"),
        ("sex,part\nf,1\n", "share"),
    ],
)
def test_a_table_that_states_no_shares_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "shares.csv").write_text(text, encoding="utf-8")
    with pytest.raises((ConfigError, UsageError), match=said):
        measured(table(100, 0), shares=str(tmp_path / "shares.csv"))


def test_rows_needed_are_those_at_which_equal_groups_pass() -> None:
    found = of(measured(table(2_000, 0, p=0.1)), "rows_needed")
    needed = {(m.sensitive, m.at["gap"]): m.estimate.value for m in found}
    parity = needed[("sex",), "demographic_parity_difference"]
    assert 1_500 < parity < 6_000 and needed[("sex",), "equalized_odds_difference"] > parity
    # As an audit of a model on so many rows of these groups would find.
    n, rng, passed = int(parity), np.random.default_rng(1), 0
    for _ in range(100):
        women = rng.binomial(n, 0.1)
        selected = rng.binomial([women, n - women], 0.5).tolist()
        rates = RateTable(rate="r", successes=tuple(selected), n=(women, n - women))
        passed += WorstDifference(tables=(rates,)).upper(0.05) <= 0.10
    assert 65 <= passed <= 97


def test_training_rows_without_groups_and_labels_are_not_applicable() -> None:
    model: Any = None
    with pytest.raises(NotApplicableError, match="--sensitive"):
        Representation().measure(model, AuditData(X=pd.DataFrame({"a": [1.0]})), np.random.default_rng(0))


# ---- error rates -----------------------------------------------------------------------------------------------------


@pytest.mark.grid(by=lambda fault, block: fault)
@pytest.mark.parametrize("fault", ["clean", "short", "missing"])
@pytest.mark.parametrize("block", range(8))
def test_planted_faults_fail_and_clean_rows_do_not(
    fault: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group 3 points short, and a column of which a tenth more is missing in one group: 10,000 rows, 10 worlds."""
    path = tmp_path / "shares.csv"
    path.write_text("sex,share\nf,0.4\nm,0.6\n", encoding="utf-8")
    # Planning takes most of the time, and is not judged.
    monkeypatch.setattr("probes.fairness.group_representation._needed", lambda *about: [])
    p, holes = {"clean": (0.4, (0.05, 0.05)), "short": (0.37, (0.05, 0.05)), "missing": (0.4, (0.15, 0.05))}[fault]
    failed = 0
    for seed in range(10 * block, 10 * block + 10):
        found = tuple(measured(table(10_000, seed, p=p, holes=holes), "sex", shares=str(path)))
        result = ProbeResult(probe="representation", pillar="fairness", citation="", measurements=found)
        failed += any(f.outcome is Outcome.FAIL for f in judge([result], CRITERIA)[0])
    assert failed <= 1 if fault == "clean" else failed >= 9
