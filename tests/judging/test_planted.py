"""Planted controls: honest probes see what is planted, blind ones are named, and a verdict can only become weaker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from auditor.data.audit_data import AuditData
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judgement import Judgement, is_waived
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult, Twins
from auditor.judging.planted import (
    FEWEST_CLEAN,
    FEWEST_PLANTED,
    held_to_plants,
    least_share,
    together,
    why_alarmed,
    why_unseen,
)
from auditor.judging.planting import TIMES, Planting, plans_of
from auditor.models.audited_model import AuditedModel
from auditor.models.twin_model import TwinModel
from auditor.run.planted import twin_costs
from auditor.run.planted.measure_twins import with_planted
from auditor.run.planted.twin_costs import affordable_twins
from auditor.run.probe import Probe, make_probe
from auditor.run.run_audit import ask, generator_for
from auditor.statistics.intervals import clopper_pearson
from cli.commands import app
from probes.fairness.adverse_impact import AdverseImpact
from probes.fairness.group_fairness import GroupFairness
from probes.fairness.group_representation import Representation
from probes.fairness.score_fairness import ScoreFairness
from probes.language import crows_pairs_and_stereoset, stereotype
from probes.performance.performance import Performance
from probes.self_test import TOYS, logged, rows_alone, self_test
from probes.table import PROBES
from probes.toy_language_model import ToyLanguageModel
from tests.data.test_benchmarks import stereoset_example
from tests.quantifiers import all_of
from tests.toys.benchmark_files import FILE_TOYS

COUNTS = st.tuples(st.integers(0, 11), st.integers(0, 11)).map(sorted)
WEAKER = {(Outcome.PASS, Outcome.INCONCLUSIVE), (Outcome.FAIL, Outcome.INCONCLUSIVE)}


def criterion(metric: str, bound: float, direction: Any = "at_most") -> Criterion:
    return Criterion(metric=metric, direction=direction, bound=bound, source="test", set_by="-", set_at="-")


CRITERIA = (
    criterion("demographic_parity_difference", 0.1),
    criterion("equalized_odds_difference", 0.1),
    criterion("equal_opportunity_difference", 0.1),
    criterion("demographic_parity_ratio", 0.8, "at_least"),
    criterion("accuracy_difference", 0.1),
    criterion("roc_auc", 0.5, "at_least"),
    criterion("accuracy", 0.6, "at_least"),
    criterion("auc_difference", 0.05),
    criterion("score_kolmogorov_smirnov", 0.1),
    criterion("score_wasserstein", 0.05),
)


def world(seed: int, n: int = 4_000) -> tuple[AuditedModel, AuditData]:
    """A model that decides by one feature, the same for everybody, and rows."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"income": rng.normal(size=n)})
    y = (X.income + rng.normal(size=n) > 0).astype(int).to_numpy()
    groups = {"sex": rng.choice(["f", "m"], n), "team": rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])}
    model = AuditedModel.from_callable(
        lambda X: 1.0 / (1.0 + np.exp(-X["income"].to_numpy())), classes=[0, 1], features=["income"]
    )
    return model, AuditData.from_arrays(X, y, classes=[0, 1], sensitive_features=groups)


def controlled(
    probe: Probe, seed: int, criteria: Sequence[Criterion], n: int = 4_000
) -> tuple[list[Judgement], ProbeResult]:
    model, data = world(seed, n)
    answer = ask(probe, model, data, generator_for(seed, probe.name))
    assert answer.measurements, answer.not_run
    [result] = with_planted([(probe, answer)], model, data, Planting(tuple(criteria), Family(), seed))
    return judge([result], criteria)[0], result


def deciding(model: AuditedModel, rows: AuditData, decisions: Any) -> TwinModel:
    return TwinModel(model, rows, np.eye(2)[decisions], np.asarray(decisions, np.int64))


class AnswersTheIdeal(GroupFairness):
    """Whatever the model decides, every other row is favoured."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        return super().measure(deciding(model, data.evaluation, np.arange(len(data.evaluation)) % 2), data, rng)


class ReadsAnotherColumn(GroupFairness):
    """The groups of other rows."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        rows = data.evaluation
        assert rows.sensitive_features is not None
        turned = replace(rows, sensitive_features=rows.sensitive_features.iloc[::-1].reset_index(drop=True))
        return super().measure(deciding(model, turned, model.decisions(rows)), turned, rng)


class AlarmsAtEverything(GroupFairness):
    """Whatever the model decides, one group is never favoured."""

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        rows = data.evaluation
        harsh = rows.groups("sex").codes * rows.groups("team").codes.clip(max=1)
        return super().measure(deciding(model, rows, harsh), data, rng)


class IdlesOnTwins(GroupFairness):
    """It measures the model, and does nothing where anything is planted."""

    def measure_planted(self, *twin: Any) -> list[Measurement]:
        return []


@pytest.mark.grid
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("blind", [AnswersTheIdeal, ReadsAnotherColumn, IdlesOnTwins])
def test_a_probe_that_does_not_see_passes_nothing_and_is_named(blind: type[GroupFairness], seed: int) -> None:
    criteria = CRITERIA[:2]
    model, data = world(seed)
    plain = judge([ask(blind(intersections=False), model, data, generator_for(seed, blind.name))], criteria)[0]
    assert any(f.outcome is Outcome.PASS for f in plain)
    found, _ = controlled(blind(intersections=False), seed, criteria)
    passed = {f.id for f in plain if f.outcome is Outcome.PASS}
    assert all_of(f.outcome is Outcome.INCONCLUSIVE and "planted" in f.blind for f in found if f.id in passed)


def test_a_probe_that_alarms_without_a_fault_fails_nothing() -> None:
    found, _ = controlled(AlarmsAtEverything(intersections=False), 0, CRITERIA[:1])
    of_sex = next(f for f in found if f.planted is not None and f.measurement and f.measurement.sensitive == ("sex",))
    assert of_sex.outcome is Outcome.INCONCLUSIVE and "twins of the model that have no fault" in of_sex.blind


@pytest.mark.parametrize(
    "probe", [GroupFairness(intersections=False), Performance()], ids=["group_fairness", "performance"]
)
def test_an_honest_probe_keeps_its_verdicts(probe: Probe) -> None:
    model, data = world(7)
    criteria = load_criteria()
    plain = judge([ask(probe, model, data, generator_for(7, probe.name))], criteria)[0]
    found, result = controlled(probe, 7, criteria)
    assert [f.outcome for f in found] == [f.outcome for f in plain]
    told = [f for f in found if f.planted is not None and f.planted.planted]
    assert any(f.outcome is Outcome.PASS for f in told)
    assert all_of("Planted at" in f.reason and not f.blind for f in told)
    assert sum(p.twins.planted for p in result.planted) >= FEWEST_PLANTED
    assert sum(p.twins.clean for p in result.planted) >= FEWEST_CLEAN


def test_seeds_are_of_what_was_measured_and_of_nothing_else() -> None:
    _, first = controlled(GroupFairness(intersections=False), 3, CRITERIA[:2])
    _, again = controlled(GroupFairness(intersections=False), 3, CRITERIA[:2])
    assert first.planted == again.planted and first.planted


def test_a_probe_without_a_plant_says_so() -> None:
    class Unplanted(GroupFairness):
        measure_planted = None  # type: ignore[assignment]

    found, _ = controlled(Unplanted(intersections=False), 0, CRITERIA[:1])
    judged = [f for f in found if f.criterion is not None]
    assert all_of(f.reason.endswith("No planted control: this probe has no control.") for f in judged)
    assert any(f.outcome is Outcome.PASS for f in judged)


def test_the_fault_is_one_and_a_half_smallest_effects_beyond_the_bound() -> None:
    model, data = world(1)
    result = ask(GroupFairness(), model, data, generator_for(1, "group_fairness"))
    [plan] = [p for p in plans_of([result], Planting(CRITERIA[:1], Family())) if p.measurement.sensitive == ("sex",)]
    effect = plan.measurement.estimate.detectable(bound=0.1, alpha=plan.level, ideal=0.0, sign=1)
    assert plan.value == pytest.approx(0.1 + TIMES * (effect - 0.1)) and effect > 0.1


@given(
    outcome=st.sampled_from(list(Outcome)),
    others=st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_a_control_can_only_weaken_a_verdict(outcome: Outcome, others: list[tuple[list[int], list[int]]]) -> None:
    findings = [
        Judgement(
            id=str(i), probe="p", pillar="fairness", citation="", outcome=outcome,
            planted=Twins(value=0.3, seen=seen, planted=n, alarmed=alarmed, clean=m),
        )
        for i, ((seen, n), (alarmed, m)) in enumerate(others)
    ]  # fmt: skip
    for before, after in zip(findings, held_to_plants(findings), strict=True):
        if after.outcome is not before.outcome:
            assert (before.outcome, after.outcome) in WEAKER
        assert bool(after.blind) == (after.outcome is not before.outcome)
        # Nor is what became of it forgiven.
        if after.blind:
            assert not is_waived(after, waivers=True)


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_what_follows_from_a_number_that_is_left_open_is_open_too(outcome: Outcome) -> None:
    blind = Twins(value=0.3, seen=0, planted=11, alarmed=5, clean=5)
    one = Judgement(id="1", probe="p", pillar="fairness", citation="", outcome=outcome, planted=blind)
    other = replace(one, id="2", planted=None)
    implied = replace(other, id="3", follows=True)
    elsewhere = replace(implied, id="4", probe="q")
    held = held_to_plants([one, other, implied, elsewhere])
    assert [f.outcome for f in held] == [Outcome.INCONCLUSIVE, outcome, Outcome.INCONCLUSIVE, outcome]
    assert "follows from" in held[2].blind


def test_the_required_share_is_held_by_an_exact_bound() -> None:
    low = float(clopper_pearson(np.asarray([7]), n=np.asarray([8]), alpha=0.05)[0][0])
    assert least_share(7, 8) == pytest.approx(low) and least_share(7, 8) > 0.5 > least_share(6, 8)
    assert least_share(2, 3) > 0.05 > least_share(1, 3)


def rates_of(probe: Probe, criteria: Sequence[Criterion], n: int) -> dict[tuple[str, tuple[str, ...]], Twins]:
    """What became of the twins of so many worlds that most numbers have at least 50 that are planted."""
    found: dict[tuple[str, tuple[str, ...]], Twins] = {}
    for seed in range(25):
        _, result = controlled_twins(probe, seed, criteria, n)
        for each in result.planted:
            before, t = found.get((each.metric, each.sensitive), Twins()), each.twins
            found[each.metric, each.sensitive] = Twins(
                seen=before.seen + t.seen, planted=before.planted + t.planted,
                alarmed=before.alarmed + t.alarmed, clean=before.clean + t.clean, why=t.why,
            )  # fmt: skip
    return found


def controlled_twins(
    probe: Probe, seed: int, criteria: Sequence[Criterion], n: int
) -> tuple[AuditedModel, ProbeResult]:
    model, data = world(seed, n)
    answer = ask(probe, model, data, generator_for(seed, probe.name))
    return model, with_planted([(probe, answer)], model, data, Planting(tuple(criteria), Family(), seed))[0]


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("n", [1_500, 4_000])
@pytest.mark.parametrize("probe", [GroupFairness, Performance, ScoreFairness])
def test_what_is_planted_is_found_and_nothing_else_is(
    probe: type[Any], n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_costs, "SHARE", 1.0)
    rates = rates_of(probe(intersections=False) if probe is not Performance else probe(), CRITERIA, n)
    made = {key: t for key, t in rates.items() if t.planted >= 50}
    assert all_of(least_share(t.seen, t.planted) >= 0.85 and t.seen >= 0.9 * t.planted for t in made.values())
    assert all_of(t.alarmed <= 0.05 * max(t.clean, 1) for t in made.values())


# ---- a probe that is broken is named ---------------------------------------------------------------------------------


def elsewhere(subject: Any, *more: Any) -> tuple[Any, ...]:
    """What a probe is asked about, with labels, groups and scores that are other rows'."""
    if not more:
        return (replace(subject, is_member=np.random.default_rng(0).permutation(subject.is_member)),)
    rows = more[0].evaluation
    index = np.random.default_rng(0).permutation(len(rows))
    others = replace(
        rows,
        y_true=None if rows.y_true is None else rows.y_true[index],
        sensitive_features=rows.sensitive_features.iloc[index].reset_index(drop=True),
    )
    if subject.kind != "classifier":
        return subject, others, *more[1:]
    return TwinModel(subject, others, subject.outputs(rows), subject.decisions(rows)), others, *more[1:]


def without_texts(subject: Any, data: Any, *more: Any) -> tuple[Any, ...]:
    return subject, replace(data, X=data.X.assign(note="about")), *more


def other_copies(data: Any, *more: Any) -> tuple[Any, ...]:
    """The rows with one column's values in another order, which are copies of none."""
    return replace(data, X=data.X.assign(note=data.X["note"].to_numpy()[::-1])), *more


def other_scores(subject: Any, data: Any, *more: Any) -> tuple[Any, ...]:
    """A log in which the scores of every sample are those that the model has by itself."""
    return subject, logged(len(data), 5)[1], *more


def other_predictions(predicted: Any, *more: Any) -> tuple[Any, ...]:
    """The predictions of other rows."""
    return np.random.default_rng(0).permutation(predicted), *more


def other_levels(table: Any, *more: Any) -> tuple[Any, ...]:
    """A table of which another column than the sex is changed: the model is told everybody's own."""
    model = table.model
    own = model.from_callable(lambda X: model.predict_proba(X.assign(sex=table.X.sex)), classes=[0, 1])
    return replace(table, model=own), *more


def other_files(subject: Any) -> tuple[Any]:
    """The scores of other files."""
    return (replace(subject, scores=np.random.default_rng(0).permutation(subject.scores)),)


def other_leads(benchmark: Any, likelihoods: Any, *more: Any) -> tuple[Any, ...]:
    """Leads of sentences that are nobody's."""
    nobodys = np.random.default_rng(0).normal(size=likelihoods.shape)
    return benchmark, nobodys, nobodys, *more[1:]


def other_triples(benchmark: Any, part: str, likelihoods: Any, *more: Any) -> tuple[Any, ...]:
    """Likelihoods of texts that are nobody's."""
    nobodys = np.random.default_rng(0).normal(size=likelihoods.shape)
    return benchmark, part, nobodys, nobodys, *more[1:]


class Broken(NamedTuple):
    """The method by which a probe measures the model and its twins alike, and where it looks when it errs.

    ``owner``: the module of a function that does, None for a method of the probe's own.
    """

    method: str = "measure"
    elsewhere: Any = elsewhere
    owner: Any = None


PLANTING = {
    "group_fairness": Broken(),
    "score_fairness": Broken(),
    "performance": Broken(),
    "membership_inference": Broken("measure_scores"),
    "adverse_impact": Broken(),
    "counterfactual_fairness": Broken("_flipped", other_levels),
    "regression_fairness": Broken("measure_numbers", other_predictions),
    "representation": Broken(),
    "data_leakage": Broken("measure_copies", other_copies),
    "personal_data": Broken(elsewhere=without_texts),
    "detector_performance": Broken("_of_subject", other_files),
    "stereotype": Broken("_measurements", other_leads, stereotype),
    "recorded_evaluation": Broken(elsewhere=other_scores),
}


def asked(name: str) -> tuple[Any, AuditedModel, AuditData, Planting]:
    """The probe, its world, in which the model has no fault, and the limits that it is held to there."""
    toy = TOYS[name]
    return (
        make_probe(PROBES[name], dict(toy.options)),
        *toy.world(4_000, 5),
        Planting(tuple(toy.criteria()), Family(), 5),
    )


def broken(planting: Broken, probe: Any, fault: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The probe that measures the model as ever, and then twins with a fault of its own."""
    owner = planting.owner or probe
    honest, answers = getattr(owner, planting.method), list[Any]()

    def measure(*given: Any) -> Any:
        if not answers:
            answers.append(honest(*given))
            return answers[0]
        return {
            "nothing": list,
            "the same": lambda: answers[0],
            "another column": lambda: honest(*planting.elsewhere(*given)),
        }[fault]()

    monkeypatch.setattr(owner, planting.method, measure)
    return probe


@pytest.mark.parametrize("fault", ["", "nothing", "the same", "another column"])
@pytest.mark.parametrize("name", PLANTING)
def test_each_probe_with_plants_is_named_where_it_is_broken(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_costs, "SHARE", 1.0)
    probe, model, data, limits = asked(name)
    probe = broken(PLANTING[name], probe, fault, monkeypatch) if fault else probe
    # What is measured of the model itself is a clean model's.
    answer = ask(probe, model, data, generator_for(5, probe.name))
    [result] = with_planted([(probe, answer)], model, data, limits)
    twins = [p.twins for p in result.planted if p.twins.planted]
    named = [why_unseen(own, together(twins)) or why_alarmed(own, together(twins)) for own in twins]
    assert all_of(bool(why) == bool(fault) for why in named)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PLANTING) - {"group_fairness", "performance", "score_fairness"}))
def test_what_is_planted_in_one_world_is_found_and_nothing_else_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_costs, "SHARE", 1.0)
    probe, model, data, limits = asked(name)
    answer = ask(probe, model, data, generator_for(5, probe.name))
    worlds = [with_planted([(probe, answer)], model, data, replace(limits, seed=seed))[0] for seed in range(20)]
    found = together([p.twins for result in worlds for p in result.planted])
    assert found.planted >= 150 and least_share(found.seen, found.planted) >= 0.85
    assert found.seen >= 0.9 * found.planted and found.alarmed <= 0.05 * found.clean


# They share the planted controls of stereotypes, on files that are not this project's.
OF_FILES = ("crows_pairs", "winobias", "stereoset")


OF_STEREOSET = Broken("_scores_of_part", other_triples, crows_pairs_and_stereoset)


def triples(folder: Path) -> dict[str, Any]:
    """Options that read 900 examples of StereoSet about 300 terms, all in sentences of their own."""
    examples = [
        stereoset_example(
            id=f"x{i}", target=f"term{i % 300}",
            sentences=[
                {"sentence": f"Neighbour {i} is {word}.", "gold_label": label, "labels": []}
                for word, label in (("kind", "stereotype"), ("rude", "anti-stereotype"), ("seven", "unrelated"))
            ],
        )
        for i in range(900)
    ]  # fmt: skip
    (folder / "dev.json").write_text(json.dumps({"data": {"intrasentence": examples, "intersentence": []}}))
    return {"benchmarks": {"stereoset": str(folder / "dev.json")}}


def test_every_probe_that_plants_is_broken_here() -> None:
    planting = {name for name, kind in PROBES.items() if hasattr(kind, "measure_planted")}
    assert planting - set(OF_FILES) == set(PLANTING) == set(TOYS)


def of_a_file(name: str, folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> Twins:
    """The twins of a probe that reads a file, of a model without a fault."""
    options = triples(folder) if name == "stereoset" else FILE_TOYS[name](folder).options
    probe, model = make_probe(PROBES[name], dict(options)), ToyLanguageModel(5)
    if fault:
        broken(OF_STEREOSET, probe, fault, monkeypatch)
    answer = ask(probe, model, None, generator_for(5, name))
    planting = Planting(tuple(load_criteria()), Family(), 5)
    [result] = with_planted([(probe, answer)], model, None, planting, share=np.inf)
    [twins] = [p.twins for p in result.planted]
    return twins


@pytest.mark.parametrize("name", OF_FILES)
def test_pairs_of_a_file_have_twins_without_rows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = of_a_file(name, tmp_path, "", monkeypatch)
    assert twins.planted >= FEWEST_PLANTED and twins.seen >= twins.planted - 1 and twins.alarmed == 0 < twins.clean


@pytest.mark.parametrize("fault", ["nothing", "the same", "another column"])
def test_stereoset_is_named_where_it_is_broken(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = of_a_file("stereoset", tmp_path, fault, monkeypatch)
    named = why_unseen(twins, twins) or why_alarmed(twins, twins)
    assert named != ""


def test_a_number_without_a_twin_leaves_its_turns_to_the_others() -> None:
    model, data = world(3)
    probe = AdverseImpact()
    answer = ask(probe, model, data, generator_for(3, probe.name))
    limits = (criterion("impact_ratio_min", 0.8, "at_least"),)
    [result] = with_planted([(probe, answer)], model, data, Planting(limits, Family(), 3), share=10.0)
    assert sum(bool(p.twins.why) for p in result.planted) == len(result.planted) // 2 == 3
    assert together([p.twins for p in result.planted]).planted == 2 * len(result.planted)


# ---- the probes' own test --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOYS)
def test_each_probe_sees_what_is_planted_in_its_own_world(name: str) -> None:
    found = list(self_test([name], [4_000]))
    assert all_of(not power.fault for power in found) and any(power.twins.planted for power in found)


def test_more_rows_show_smaller_faults() -> None:
    few, many = ([p.twins.value for p in self_test(["group_fairness"], [n])] for n in (500, 5_000))
    assert all_of(a is not None and b is not None and a > b for a, b in zip(few, many, strict=True))


def test_why_a_probe_judges_nothing_is_said() -> None:
    [power] = self_test(["membership_inference"], [500])
    assert not power.twins.planted and "was not trained on" in power.twins.why


def test_a_probe_that_does_not_see_is_named_by_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupFairness, "measure_planted", lambda *given: [])
    code, told = run_self_test("group_fairness", "--rows", "500")
    assert code == 1 and "not seen" in told and "The probe saw 0 of 10 faults" in told


def test_the_self_test_is_a_command() -> None:
    code, told = run_self_test("performance", "--rows", "500", "--json")
    [first, *_] = json.loads(told)
    assert code == 0 and first["probe"] == "performance" and first["seen"] == first["planted"] == 20
    code, told = run_self_test("performnce")
    assert code == 2 and "did you mean 'performance'" in told


def run_self_test(*words: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["probes", "self-test", *words])
    return found.exit_code, found.stdout or found.output


def test_a_group_that_is_short_of_its_share_is_seen_and_shares_that_are_met_are_not(tmp_path: Path) -> None:
    (tmp_path / "shares.csv").write_text("sex,share\nf,0.5\nm,0.5\n")
    model, data = rows_alone(4_000, 5)
    probe = Representation(shares=str(tmp_path / "shares.csv"))
    answer = ask(probe, model, data, generator_for(5, probe.name))
    limits = (criterion("representation_shortfall", 0.02),)
    [result] = with_planted([(probe, answer)], model, data, Planting(limits, Family(), 5))
    [twins] = [p.twins for p in result.planted]
    assert (twins.planted, twins.clean) == (FEWEST_PLANTED, FEWEST_CLEAN)
    assert twins.seen >= FEWEST_PLANTED - 1 and not twins.alarmed


def test_what_an_audit_cannot_afford_is_left_out_by_counts_alone() -> None:
    probe = Performance()
    result = ask(probe, *world(0, n=500), generator_for(0, probe.name))
    many, few = ([affordable_twins([(p, result)], [(16, 1)], n, n)[0] for n in (500, 10**6)] for p in (probe, object()))
    assert many == [16, 16] and few == [16, 0]


def test_twins_of_many_rows_have_some_of_them_and_say_so() -> None:
    model, data = world(0, n=12_000)
    probe = Performance()
    answer = ask(probe, model, data, generator_for(0, probe.name))
    for rows, said in ((data, 10_000), (data.take(slice(0, 9_000)), 0)):
        [result] = with_planted([(probe, answer)], model, rows, Planting(CRITERIA, Family(), 0))
        twins = [p.twins for p in result.planted if p.twins.planted]
        assert twins and all_of(t.rows == said and t.seen == t.planted for t in twins)
