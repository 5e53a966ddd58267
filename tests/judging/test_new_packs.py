"""Each newer pack: silence fills no cell of it, a record fills those that it answers, and it says what was not read."""

from __future__ import annotations

from datetime import date

import pytest

from auditor.judging.measurement import Measurement, ProbeResult
from auditor.judging.policy import Policy, load_policies
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.controls import Beside, with_policies
from auditor.statistics.estimate import Exact
from auditor.statistics.rates import Proportion
from tests.quantifiers import all_of, none_of
from tests.report.samples import report_of

DAY = date(2027, 6, 1)


def _result(probe: str, metric: str, method: str = "", **places: object) -> ProbeResult:
    number = Measurement(
        metric=metric, method=method, estimate=Proportion(successes=30, n=100), n_samples=100, **places  # type: ignore[arg-type]
    )  # fmt: skip
    return ProbeResult(probe=probe, pillar="fairness", citation="", measurements=(number,))


# A classifier of rows with known outcomes and one sensitive feature, and little else asked of it.
TABLE = (
    _result("performance", "accuracy"),
    _result("group_fairness", "accuracy_difference", sensitive=("sex",)),
    _result("adverse_impact", "impact_ratio_min", "selection_rate", sensitive=("sex",)),
    _result("proxy_association", "proxy_auc", sensitive=("sex",)),
    _result("feature_attribution", "faithfulness_gain", "lime"),
)
# A language model and a detector, in one record: which cells of a pack are whose is what is looked at.
OTHERS = (
    _result("bbq", "bias_score"),
    _result("contamination", "contamination_p_value"),
    _result("detector_performance", "roc_auc"),
    _result("detector_robustness", "balanced_accuracy"),
)
_GAPS = {"testing", "proxies"}
EXPECTED: dict[str, tuple[set[str], set[str]]] = {
    "us-sr-26-2": ({"validation, outcomes", "validation, explanation"}, set()),
    "us-ny-dfs-cl-2024-7": (
        {"discrimination, quantitative", "discrimination, proxies", "actuarial validity", "notice"},
        set(),
    ),
    "us-co-doi-10-1-1": ({"section 5, testing"}, set()),
    "us-ca-admt": ({"7150", "7222"}, set()),
    "us-ca-feha-ads": (_GAPS, set()),
    "us-il-hb3773": ({"2-102, effect", "2-102, zip codes"}, set()),
    "us-tx-traiga": ({"552.056", "552.103, metrics"}, set()),
    "pren-18283": ({"hazards", "measures"}, set()),
    "iso-iec-ts-12791": ({"5.2.1", "5.3.3"}, set()),
    "iso-iec-5259-2": (set(), set()),
    "ieee-7003": ({"evaluation"}, set()),
    "nist-ai-800-2": (set(), {"2, benchmarks", "2, contamination"}),
    "nist-ai-800-3": (set(), {"estimand"}),
    "eu-marking-code": (set(), {"section 1, detection", "section 1, quality"}),
}
PACKS = {pack.name: pack for pack in load_policies(list(EXPECTED))[0]}


def _evidence(report: AuditReport, pack: Policy, **beside: Beside) -> set[str]:
    held = with_policies(report, [pack], DAY, **beside)
    assert len(held.controls) == len(pack.controls) > 2
    return {c.id for c in held.controls if any(cell.kind == "evidence" for cell in c.cells)}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_empty_record_is_evidence_of_nothing(name: str) -> None:
    assert _evidence(report_of([]), PACKS[name]) == set()
    # What did not run is none either.
    idle = [ProbeResult(probe=r.probe, pillar="fairness", citation="", not_run="It hung.") for r in (*TABLE, *OTHERS)]
    assert _evidence(report_of(idle), PACKS[name]) == set()


@pytest.mark.parametrize(("name", "of_table", "of_others"), [(n, *both) for n, both in EXPECTED.items()])
def test_a_record_is_evidence_of_what_it_answers_and_of_no_more(
    name: str, of_table: set[str], of_others: set[str]
) -> None:
    assert _evidence(report_of(TABLE, held_to=[]), PACKS[name]) == of_table
    assert _evidence(report_of(OTHERS, held_to=[]), PACKS[name]) == of_others


@pytest.mark.parametrize("name", EXPECTED)
def test_every_control_that_nothing_answers_names_a_role_or_a_way(name: str) -> None:
    held = with_policies(report_of([]), [PACKS[name]], DAY)
    cells = [cell for control in held.controls for cell in control.cells]
    assert all_of(cell.role or cell.how for cell in cells)
    assert all_of(cell.source and cell.checked_on == str(PACKS[name].checked_on) and cell.certainty for cell in cells)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_pack_says_what_was_not_read_and_sets_no_bound(name: str) -> None:
    pack = PACKS[name]
    assert any("Not looked up:" in note for note in pack.notes)
    assert pack.version == "1" and not pack.criteria
    # A page was read of each; no primary text is claimed.
    assert none_of(control.certainty == "text" for control in pack.controls)


def test_measures_of_data_quality_are_evidence_and_most_of_quality_is_said_by_a_person() -> None:
    """Each characteristic by one number alone; three have none of ours."""
    pack = PACKS["iso-iec-5259-2"]
    numbers = {
        "accuracy": _result("label_bias", "largest_label_error_difference"),
        "completeness": _result("representation", "missing_rate_difference"),
        "consistency": _result("label_conflicts", "label_conflict_rate"),
        "credibility": _result("data_documentation", "contradicted_statements"),
        "balance": _result("representation", "smallest_group_rows"),
        "representativeness": _result("representation", "representation_shortfall"),
        "similarity": _result("data_leakage", "excess_overlap_rate"),
        "identifiability": _result("personal_data", "recognised_rate"),
    }
    for name, result in numbers.items():
        assert _evidence(report_of([result], held_to=[]), pack) == {name}
    others = {control.id for control in pack.controls} - set(numbers)
    assert others == {
        "currentness, timeliness", "diversity", "relevance, effectiveness", "auditability, traceability",
    }  # fmt: skip


def test_a_generators_files_are_evidence_of_marking() -> None:
    pack = PACKS["eu-marking-code"]
    marks = ("marked_share", "found_share", "surviving_share", "false_detection_rate")
    assert _evidence(report_of([_result("marking", m) for m in marks], held_to=[]), pack) == {
        "section 1, marking", "section 1, detection", "section 1, quality",
    }  # fmt: skip
    (act,) = load_policies(["eu-ai-act"])[0]
    assert _evidence(report_of([_result("marking", "surviving_share")], held_to=[]), act) == {"Art. 50(2)"}
    # What anybody's certificate says is evidence of nothing.
    assert _evidence(report_of([_result("marking", "intact_manifest_share")], held_to=[]), act) == set()


def test_a_trade_off_is_evidence_of_the_search_for_alternatives() -> None:
    pack = PACKS["us-ny-dfs-cl-2024-7"]
    search = "discrimination, alternatives"
    assert search not in _evidence(report_of(TABLE), pack)
    assert search not in _evidence(report_of(TABLE), pack, tradeoff=Beside(reason="It is of another model."))
    assert search in _evidence(report_of(TABLE), pack, tradeoff=Beside(said="4 other models tried."))


def test_the_effect_is_no_evidence_of_what_texas_forbids_alone() -> None:
    rules = next(c for c in PACKS["us-tx-traiga"].controls if c.id == "552.056").evidence
    assert "not sufficient by themselves" in next(r.what for r in rules if r.probe == "group_fairness")


def test_what_is_known_by_memory_alone_is_marked() -> None:
    told = {(name, c.id) for name, pack in PACKS.items() for c in pack.controls if c.certainty == "memory"}
    whole = {("iso-iec-5259-2", control.id) for control in PACKS["iso-iec-5259-2"].controls}
    assert told == {("nist-ai-800-2", "2, contamination"), *whole}
    exact = Measurement(metric="contamination_p_value", estimate=Exact(known=0.5), n_samples=1)
    made = ProbeResult(probe="contamination", pillar="language", citation="", measurements=(exact,))
    held = with_policies(report_of([made]), [PACKS["nist-ai-800-2"]], DAY)
    (cell,) = next(c for c in held.controls if c.id == "2, contamination").cells
    assert cell.kind == "evidence" and cell.certainty == "from general knowledge, not looked up"
