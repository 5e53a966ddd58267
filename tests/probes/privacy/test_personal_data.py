"""Personal data in the training rows: counts against a search by hand, masked examples, and planted addresses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.profiles import DATA_PROFILE
from auditor.models.audited_model import Provenance
from auditor.models.recorded_model import NoModel
from probes.privacy.personal_data import PersonalData

NONE = NoModel(classes=(), features=(), provenance=Provenance(format="no model", loaded_by="nothing"))
WORDS = "paid late moved called twice no answer letter sent house sold 2024 12 items".split()


def remarks(n: int, seed: int, addresses: int = 0) -> pd.DataFrame:
    """Rows with a remark of words; ``addresses`` of them with an e-mail address."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 4)) for _ in range(n)]
    for i in rng.choice(n, addresses, replace=False):
        texts[i] += f" write to jo{i}@northmail.org"
    return pd.DataFrame({"amount": rng.normal(size=n), "remark": texts})


def measured(X: pd.DataFrame | np.ndarray, groups: pd.DataFrame | None = None) -> list[Measurement]:  # type: ignore[type-arg]
    return PersonalData().measure(NONE, AuditData(X=X, sensitive_features=groups), np.random.default_rng(0))


def rates(found: list[Measurement], metric: str = "recognised_rate") -> dict[str, Measurement]:
    return {str(m.at["kind"]): m for m in found if m.metric == metric}


def test_counts_are_those_of_a_search_and_examples_are_masked() -> None:
    frame = remarks(2_000, 0, 30)
    frame.loc[5, "remark"] = "call +44 20 7946 0958 or jo5@northmail.org"
    found = measured(frame)
    own = rates(found)
    by_hand = int(frame.remark.str.contains("@").sum())
    assert own["email"].estimate.value == own["any"].estimate.value == by_hand / 2_000
    assert own["phone"].estimate.value == 1 / 2_000
    assert "remark: " in own["email"].detail and "northmail" not in "".join(m.detail for m in found)
    corrected = rates(found, "personal_data_rate")["email"].estimate
    assert corrected.lower(0.05) <= by_hand / 2_000 <= corrected.upper(0.05)


def test_a_text_that_repeats_counts_in_each_row_and_a_missing_one_in_none() -> None:
    frame = pd.DataFrame({"a": ["jo@northmail.org", None, "jo@northmail.org", "none"], "b": [1, 2, 3, 4]})
    assert rates(measured(frame))["any"].estimate.value == 0.5
    texts = np.asarray(["jo@northmail.org", "", "nothing", "nothing"], object)
    assert rates(measured(texts))["email"].estimate.value == 0.25


def test_columns_of_special_categories_are_named() -> None:
    frame = pd.DataFrame({"HealthStatus": [1], "union_member": [0], "income": [1.0], "reunion": [2]})
    found = measured(frame, pd.DataFrame({"race": ["a"]}))
    assert found[0].metric == "special_category_columns" and found[0].estimate.value == 3.0
    assert "income" not in found[0].detail and "reunion:" not in found[0].detail


def test_rows_without_texts_and_such_names_are_not_applicable() -> None:
    with pytest.raises(NotApplicableError, match="texts"):
        measured(pd.DataFrame({"a": [1.0]}))


@pytest.mark.grid(by=lambda addresses, block: addresses)
@pytest.mark.parametrize("addresses", [0, 10])
@pytest.mark.parametrize("block", range(8))
def test_addresses_in_one_row_of_a_thousand_fail_and_clean_rows_do_not(addresses: int, block: int) -> None:
    """10,000 rows, 10 worlds."""
    failed = 0
    for seed in range(10 * block, 10 * block + 10):
        found = tuple(measured(remarks(10_000, seed, addresses)))
        result = ProbeResult(probe="personal_data", pillar="privacy", citation="", measurements=found)
        failed += any(f.outcome is Outcome.FAIL for f in judge([result], load_criteria(DATA_PROFILE))[0])
    assert failed >= 9 if addresses else failed == 0
