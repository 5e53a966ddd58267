"""Whoever labels texts errs: how often is measured, rates are corrected for it, and nothing is judged without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import ConfigError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Recorded
from auditor.judging.criterion import load_criteria
from auditor.judging.input_files import ObeyedFile
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.endpoint.api_messages import Answer, Choice, Request
from auditor.models.endpoint.client import Outcome as Outcome_
from auditor.models.endpoint.endpoint_model import endpoint_model
from auditor.models.recorded_model import RecordedWriter
from auditor.run.probe import make_probe
from auditor.run.run_audit import no_data
from auditor.run.scan import probe_specs
from auditor.run.scan_options import Configured, ScanOptions
from cli.scan_request import refuse_more
from probes import PROBES
from probes.language.calibration import Counted, Errors, group_rates, read_calibration, whole_rate
from probes.language.generated_text import GeneratedText
from probes.language.generation_bias import GenerationBias
from probes.language.text_scorers import Device, load_device
from tests.models.endpoint.reference import shown
from tests.probes.language.talkers import goodness, judged, probe_of, talker
from tests.quantifiers import all_of, none_of
from tests.toys.labelled import calibrated
from tests.toys.models import criterion

RNG = np.random.default_rng(0)
# What a scorer counts or averages, by a profile that nobody chose.
AS_COUNTED = {
    "flagged_rate", "average_individual_fairness", "average_group_fairness", "worst_score_gap", "identity_score_gap",
    "mean_score", "group_score_gap", "mean_text_score", "worst_text_score_gap", "honest_score",
}  # fmt: skip


def by_default(found: list[Measurement], probe: str = "generation_bias") -> list[Judgement]:
    result = ProbeResult(probe=probe, pillar="language", citation="", measurements=tuple(found))
    return [f for f in judge([result], load_criteria())[0] if f.measurement is not None]


def errors(**groups: tuple[int, int, int, int]) -> Errors:
    counted = {name: Counted(*of) for name, of in groups.items()}
    together = np.asarray(list(groups.values())).sum(axis=0).tolist()
    return Errors(Counted(*together), counted, "items")


# ---- the file ------------------------------------------------------------------------------------------------------


def test_the_device_is_tried_here_and_now(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(
        'text,label,group\nx,1,a\n"x, y\nz",Yes,a\nno,TRUE,b\nn,0,a\nx two\u2028lines,no,b\nm,false,b\n',
        encoding="utf-8",
    )
    told = read_calibration(tmp_path / "items.csv").measure_errors(lambda texts: np.asarray(["x" in t for t in texts]))
    assert told.every == Counted(2, 3, 2, 3)
    assert told.by_group == {"a": Counted(2, 2, 1, 1), "b": Counted(0, 1, 1, 2)}
    assert told.source.startswith("6 items of items.csv, sha256 ") and "checked" not in told.source


def test_labels_that_a_file_brings_are_said_to_be_unchecked(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,label,predicted\n1,1,1\n2,1,0\n3,0,0\n")

    def never(texts: object) -> Any:
        raise AssertionError("asked about ids")

    told = read_calibration(tmp_path / "items.csv").measure_errors(never)
    assert told.every == Counted(1, 2, 1, 1) and told.by_group == {} and "nothing here checked" in told.source


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "needs the columns text and label"),
        ("text,group\na,b\n", "needs the columns text and label"),
        ("text,label,predicted\na,1,1\nb,0,0\n", "its label is in no file"),
        ("label,predicted\n1,1\n0,0\n", "needs the column id"),
        ("text,label\na,1\nb,1\n", "items labelled 1 and items labelled 0"),
        ("text,label\na,1\nb,maybe\n", "row 3: label must be 1 or 0, not 'maybe'"),
        ("text,label\na,1\na,1\nb,0\n", "the item 'a' twice"),
        ("text,label\na,1\n ,0\n", "without a text"),
        ("text,label\na,1\nb\n", "row 3, has 1 cells of 2"),
        ('text,label\n"a,1\n', "cannot be read as CSV"),
    ],
)
def test_files_that_calibrate_nothing(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "items.csv").write_text(content)
    with pytest.raises(ConfigError, match=says):
        make_probe(GenerationBias, {"calibration": str(tmp_path / "items.csv")})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_calibration(tmp_path / "nowhere.csv")


# ---- rates ---------------------------------------------------------------------------------------------------------


def test_no_default_criterion_rests_on_what_a_scorer_counted() -> None:
    assert {c.metric for c in load_criteria()} & AS_COUNTED == set()


def test_without_a_calibration_nothing_is_judged_and_each_number_says_why(tmp_path: Path) -> None:
    found = probe_of(tmp_path, goodness(), None, calibration=None).measure(talker("dog"), no_data(), RNG)
    assert {m.metric for m in found} >= {"flagged_rate", "worst_score_gap"}
    assert none_of(m.metric.startswith("corrected") for m in found)
    shown = [f for f in by_default(found) if f.metric in AS_COUNTED]
    assert all_of(f.outcome is Outcome.NOT_JUDGED and "add --calibration FILE" in f.reason for f in shown)
    # Nor by a criterion of the user's own.
    for metric in ("worst_score_gap", "average_group_fairness", "flagged_rate"):
        finding = judged(found, metric)
        assert finding.outcome is Outcome.INCONCLUSIVE and "how often is not known" in finding.reason
    told = judged(found, "worst_score_gap").reason
    assert "Without it 10 of 60 beginnings are gone on from, with it 40." in told, "what is shown alone takes less time"
    for more in ({"n_templates": 20}, {"n_templates": None, "max_continuations": 500}):
        asked = probe_of(tmp_path, goodness(), **{"calibration": None} | more)  # type: ignore[arg-type]
        assert not asked.fewer and asked.n_templates in (20, 40), "less only where nobody asked for more"


@pytest.mark.parametrize(("target", "outcome"), [("dog", Outcome.FAIL), (None, Outcome.PASS)])
def test_a_gap_is_judged_by_each_groups_own_errors(tmp_path: Path, target: str | None, outcome: Outcome) -> None:
    found = probe_of(tmp_path, goodness()).measure(talker(target), no_data(), RNG)
    (finding,) = (f for f in by_default(found) if f.metric == "corrected_rate_gap")
    assert finding.outcome is outcome
    own = {m.at["identity"]: m.estimate.value for m in found if m.metric == "corrected_rate" and "identity" in m.at}
    assert own == {"feline": 1.0, "canine": float(target is None)}
    raw = [f for f in by_default(found) if f.metric == "flagged_rate"]
    assert len(raw) == 3 and all_of(f.outcome is Outcome.NOT_JUDGED and "Display only" in f.reason for f in raw)


def test_of_a_server_that_shows_nothing_but_texts_no_gap_passes(tmp_path: Path) -> None:
    def ask(requests: Sequence[Request]) -> list[Outcome_]:
        return [Outcome_(Answer(None, (Choice(" good", "stop"),))) for _ in requests]

    for lacking, outcome in (({"text_likelihoods": "lacking"}, Outcome.INCONCLUSIVE), ({}, Outcome.PASS)):
        model = endpoint_model(shown(**lacking), ask)
        found = probe_of(tmp_path, goodness()).measure(model, no_data(), np.random.default_rng(0))
        (finding,) = (f for f in by_default(found) if f.metric == "corrected_rate_gap")
        assert finding.outcome is outcome
        assert ("Nothing but the model's texts" in finding.reason) == bool(lacking)


def test_without_groups_in_the_calibration_the_gap_is_shown_and_not_judged(tmp_path: Path) -> None:
    for file in (calibrated(groups=False), _without("canine", tmp_path)):
        probe = probe_of(tmp_path, goodness(), calibration=file)
        found = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
        (finding,) = (f for f in by_default(found) if f.metric == "corrected_rate_gap")
        assert finding.outcome is Outcome.NOT_JUDGED and "a device may err" in finding.reason.lower()


def _without(group: str, folder: Path) -> str:
    lines = Path(calibrated()).read_text().splitlines(keepends=True)
    (folder / "fewer.csv").write_text("".join(line for line in lines if group not in line))
    return str(folder / "fewer.csv")


def test_a_gap_of_the_devices_making_is_no_fail() -> None:
    """Both groups' texts are so as often as the other's; the device overlooks half of them in one group."""
    rng = np.random.default_rng(5)
    n, seen = 1_600, {"a": 0.98, "b": 0.5}
    flags = {g: rng.random(n) < 0.5 * found for g, found in seen.items()}
    told = errors(a=(1_568, 1_600, 1_600, 1_600), b=(800, 1_600, 1_600, 1_600))
    alike = Errors(told.every, {"a": told.every, "b": told.every}, "as if it erred alike")
    as_if, of_each = (group_rates(flags, e, method="m", note="", mute="")[0][0] for e in (alike, told))
    assert judged([as_if], "corrected_rate_gap").outcome is Outcome.FAIL
    assert judged([of_each], "corrected_rate_gap").outcome is not Outcome.FAIL and of_each.estimate.value < 0.1
    # And one that the device hides is one.
    hidden = {"a": rng.random(n) < 0.3, "b": rng.random(n) < 0.6 * 0.5}
    assert abs(hidden["a"].mean() - hidden["b"].mean()) < 0.05
    (gap,) = group_rates(hidden, told, method="m", note="", mute="")[0]
    assert judged([gap], "corrected_rate_gap").outcome is Outcome.FAIL


@pytest.mark.parametrize("says", [1.0, 0.0])
def test_a_device_that_always_says_the_same_shows_nothing(tmp_path: Path, says: float) -> None:
    from auditor.models.audited_model import AuditedModel

    deaf = AuditedModel.from_callable(lambda texts: np.full(len(texts), says), classes=("bad", "good"))
    found = probe_of(tmp_path, deaf).measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert judged(found, "corrected_rate_gap").outcome is Outcome.INCONCLUSIVE
    for metric in ("worst_score_gap", "average_individual_fairness"):
        finding = judged(found, metric, bound=0.9)
        assert finding.outcome is Outcome.INCONCLUSIVE and "nothing follows from it" in finding.reason
    gap = next(m for m in found if m.metric == "corrected_rate_gap").estimate
    assert np.isnan(gap.value) and gap.bounds(0.05) == (0.0, 1.0)


def test_few_items_leave_much_open() -> None:
    """Two items of either sort about each group: no gap of any size is within or beyond a bound."""
    flags: Mapping[str, Any] = {"a": np.ones(4_000, bool), "b": np.zeros(4_000, bool)}
    (gap,) = group_rates(flags, errors(a=(2, 2, 2, 2), b=(2, 2, 2, 2)), method="m", note="", mute="")[0]
    assert gap.estimate.value == 1.0
    assert [judged([gap], "corrected_rate_gap", bound=b).outcome for b in (0.1, 0.9)] == [Outcome.INCONCLUSIVE] * 2


def test_a_rate_is_printed_raw_and_corrected() -> None:
    raw, corrected = whole_rate(np.arange(400) < 80, errors(a=(90, 100, 180, 200)), method="m", note="so", mute="")
    assert (raw.metric, raw.estimate.value) == ("flagged_rate", 0.2) and raw.too_few
    # (0.2 - 0.1) / (0.9 - 0.1), by hand.
    assert corrected.estimate.value == pytest.approx(0.125) and not corrected.too_few
    assert "counted 0.200 of 400" in corrected.detail
    assert "sensitivity 0.900, specificity 0.900 of 100 and 200 items" in corrected.detail


def test_from_where_on_a_text_is_said_to_be_so() -> None:
    pytest.importorskip("vaderSentiment", reason="the default scorer is not installed")
    vader = load_device(None)
    assert vader.labels(["A horrible, terrible person", "What a lovely day", "The table"]).tolist() == [
        True,
        False,
        False,
    ]
    edge = Device(lambda texts: np.asarray([(c + 1.0) / 2.0 for c in (-0.05, -0.0499)]), "VADER", None)
    assert edge.labels(["", ""]).tolist() == [True, False] and "negative" in edge.says
    assert load_device(goodness()).labels(["good", "bad", "good bad"]).tolist() == [True, False, True]


def test_recorded_texts_by_group() -> None:
    n = 800
    group = np.where(np.arange(n) % 2 == 0, "a", "b")
    texts = np.asarray([f"{'bad' if g == 'b' else 'good'} {i % 7}" for i, g in enumerate(group)], object)
    rows = AuditData(
        X=pd.DataFrame(index=pd.RangeIndex(n)), sensitive_features=pd.DataFrame({"about": group}),
        recorded=Recorded(texts=texts),
    )  # fmt: skip
    for calibration, outcome in ((calibrated(), Outcome.FAIL), (calibrated(groups=False), Outcome.NOT_JUDGED)):
        probe = GeneratedText(scorer=goodness(), calibration=calibration)
        found = by_default(list(probe.measure(RecordedWriter(), rows, RNG)), probe.name)
        (gap,) = (f for f in found if f.metric == "corrected_rate_gap")
        assert gap.outcome is outcome and gap.measurement is not None and gap.measurement.estimate.value == 1.0
    assert gap.measurement is not None
    assert judged([gap.measurement], "corrected_rate_gap").outcome is Outcome.INCONCLUSIVE


def test_the_flag_is_of_the_scorer_alone_and_lies_where_a_found_file_may_read(tmp_path: Path) -> None:
    options = ScanOptions(calibration=calibrated(), probes=tuple(PROBES))
    specs = probe_specs(Configured(options=options, probe_options={}, criteria=()), PROBES)
    given = {spec.name for spec in specs if "calibration" in spec.options}
    assert given == {"generation_bias", "bold", "generated_text"}
    nowhere = replace(options, calibration=str(tmp_path / "nowhere.csv"))
    with pytest.raises(UsageError, match="There is no calibration at"):
        probe_specs(Configured(options=nowhere, probe_options={}, criteria=()), PROBES)
    found = ObeyedFile(path="audit.toml", role="configuration", origin="found", content=b"")
    with pytest.raises(ConfigError, match="calibration, which lies outside of it"):
        refuse_more(found, {"calibration": calibrated()}, {}, [])


@pytest.mark.parametrize(("found", "outcome"), [(800, Outcome.INCONCLUSIVE), (799, Outcome.PASS)])
def test_a_device_that_agrees_with_every_label_passes_nothing(found: int, outcome: Outcome) -> None:
    """Labels that it gave itself look like that; a rate that is too high is too high all the same."""
    own = Counted(found, 800, 800, 800)
    errors = Errors(Counted(2 * found, 1600, 1600, 1600), {"a": own, "b": own}, "items")
    flags = {name: np.arange(3000) % 25 == 0 for name in ("a", "b")}
    [gap], _ = group_rates(flags, errors, method="m", note="", mute="")
    rates = whole_rate(flags["a"], errors, method="m", note="", mute="")
    result = ProbeResult(probe="p", pillar="language", citation="", measurements=(gap, *rates))
    held = [criterion("corrected_rate_gap", "at_most", 0.1), criterion("corrected_rate", "at_most", 0.2)]
    judged = [f for f in judge([result], held)[0] if f.criterion is not None]
    assert [f.outcome for f in judged] == [outcome, outcome]
    low = [criterion("corrected_rate", "at_most", 0.01)]
    assert [f.outcome for f in judge([result], low)[0] if f.criterion is not None] == [Outcome.FAIL]
