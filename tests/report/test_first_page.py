"""The first page: a verdict of effect, questions by their worst, what nobody bounded, what to do; words, and lies."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from string import Formatter

import numpy as np
import pytest

from auditor.core.errors import ConfigError, UsageError
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.measurement import AuditQuestion, Measurement, Outcome, ProbeResult
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.report.first_page import MOST_LINES, FirstPage, first_page
from auditor.report.first_page_parts import rows_of_rate
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About, ConfigurationFile, ConfigurationRecord, Labels, about_of
from auditor.report.record.finding_text import earlier_questions
from auditor.report.record.translations import ENGLISH, SHIPPED, Catalogue, shipped, words_of
from auditor.report.remediation import remediation_of
from auditor.run.membership_scores import AttackHead, MembershipHead, MembershipScores
from auditor.run.probe import blank_result
from auditor.statistics.attack_estimates import AttackPart, StrongestAttack
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.groups import WorstDifference
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.rates import Proportion, RateTable
from cli.terminal import print_report
from probes import PROBES
from probes.privacy.membership.membership_inference import MembershipInference
from tests.quantifiers import all_of, none_of
from tests.report.samples import HOSTILE, fairness, obeyed, privacy, refused_report, report_of, sample_report
from tests.toys.models import criterion


def gap(
    approved: tuple[int, int] = (50, 96), n: tuple[int, int] = (100, 100), feature: str = "afam"
) -> tuple[Measurement, ...]:
    table = RateTable(rate="selection_rate", successes=approved, n=n)
    groups = [
        Measurement(
            metric="selection_rate",
            estimate=Proportion(successes=k, n=m),
            n_samples=m,
            method="between_groups",
            group={feature: level},
        )
        for level, k, m in zip(("yes", "no"), approved, n, strict=True)
    ]
    worst = Measurement(
        metric="demographic_parity_difference",
        estimate=WorstDifference(tables=(table,)),
        n_samples=sum(n),
        method="between_groups",
        ideal=0.0,
        sensitive=(feature,),
    )
    return worst, *groups


def group_fairness(*measurements: Measurement) -> ProbeResult:
    return ProbeResult(probe="group_fairness", pillar="fairness", citation="c", measurements=measurements)


def told(report: AuditReport, **said: object) -> FirstPage:
    return first_page(report.model_copy(update={"about": About.model_validate(said)} if said else {}))


def replaced(criterion: Criterion, **changes: object) -> Criterion:
    return criterion.model_copy(update=changes)


LABELS = {"afam": "African-American", "afam.yes": "African-American applicants", "afam.no": "other applicants"}


# ---- what it says --------------------------------------------------------------------------------------------------


def test_the_verdict_is_one_of_effect() -> None:
    report = report_of([group_fairness(*gap())])
    target, positive = report.data.target, report.data.positive
    page = told(report, labels=LABELS | {f"{target}.{positive}": "a loan"})
    assert page.outcome is Outcome.FAIL
    assert page.effect == (
        "African-American applicants (afam = yes) get “a loan” 50\N{NO-BREAK SPACE}% of the time, other applicants "
        "(afam = no) 96\N{NO-BREAK SPACE}% (of 100 and 100 rows). At the higher rate, 46 more of these 100 would get "
        "it. We are sure that this is over the limit of 10 points."
    )
    plain = told(report).effect
    assert plain.startswith("afam = yes get “no” 50") and ", afam = no 96" in plain
    assert "nobody stated what “no” means ([labels] in audit.toml)" in told(report).subtitle
    assert none_of("nobody stated" in part for part in page.subtitle)


def test_the_two_groups_are_those_that_the_number_compares() -> None:
    """Of a group that is too small to be compared the rate lies further out."""
    rate = Proportion(successes=3, n=3)
    small = Measurement(
        metric="selection_rate", estimate=rate, group={"afam": "other"}, n_samples=3, method="between_groups"
    )
    effect = first_page(report_of([group_fairness(small, *gap())])).effect
    assert "(of 100 and 100 rows)" in effect and "other" not in effect


def test_an_error_rate_is_said_of_those_who_could_have_it() -> None:
    """Of those with one label, though their group is larger."""
    rate = Proportion(successes=2, n=24)
    own = Measurement(metric="true_positive_rate", estimate=rate, group={"afam": "yes"}, n_samples=871)
    result = ProbeResult(probe="group_fairness", pillar="fairness", citation="", measurements=(own,))
    [made] = [f for f in report_of([result]).findings if f.metric == own.metric]
    assert rows_of_rate(made) == 24 and rows_of_rate(made.model_copy(update={"estimate": None})) == 871


@pytest.mark.parametrize(
    ("approved", "n", "said"),
    [
        ((85, 96), (100, 100), "but not that it is over the limit of 10 points."),
        ((9, 10), (10, 10), "Whether there is a gap at all is open."),
        ((950, 960), (1000, 1000), "is shown to lie within its limit"),
    ],
)
def test_what_is_not_shown_is_never_said_to_be(approved: tuple[int, int], n: tuple[int, int], said: str) -> None:
    report = report_of([group_fairness(*gap(approved, n))])
    effect = first_page(report).effect
    assert said in effect
    assert ("We are sure that there is a gap" in effect) is ("over the limit" in effect)
    assert ("would get it" in effect) is ("We are sure" in effect)


def test_the_group_that_is_worse_off_is_the_one_that_is_named_first() -> None:
    swapped = first_page(report_of([group_fairness(*gap((96, 50)))])).effect
    assert swapped.startswith("afam = no get “no” 50") and ", afam = yes 96" in swapped


def test_the_worst_stands_first_and_a_questions_rows_stand_together() -> None:
    page = first_page(sample_report())
    order = (Outcome.FAIL, Outcome.NOT_RUN, Outcome.INCONCLUSIVE, Outcome.PASS)
    first_of_each = [order.index(line.outcome) for line in page.lines if line.name]
    assert len(first_of_each) > 2 and first_of_each == sorted(first_of_each)
    names = [line.name for line in page.lines if line.name]
    assert len(set(names)) == len(names) and page.lines[0].name == "Demographic parity"
    assert sum(page.spans) == len(page.lines) and page.spans.count(0) == len(page.lines) - len(names)


def subgroup(words: str, k: int) -> Measurement:
    return Measurement(
        metric="subgroup_gap",
        estimate=Proportion(successes=k, n=1000),
        n_samples=1000,
        ideal=0.0,
        at={"rate": "rejection_rate", "slice": words},
    )


def test_a_subgroup_is_named_and_a_condition_on_another_feature_is_no_group() -> None:
    gaps = [
        subgroup("income in [7700, 26200) & debt in [0.5, 1]", 900),
        subgroup("income in [7700, 26200) & sex = female", 500),
        subgroup("sex = female", 400),
    ]
    counts = [
        Measurement(metric=metric, estimate=Exact(known=k), n_samples=1000, ideal=0.0)
        for metric, k in (("confirmed_sensitive_subgroups", 2.0), ("confirmed_subgroups", 3.0))
    ]
    found = ProbeResult(
        probe="subgroup_discovery", pillar="fairness", citation="", measurements=(*counts, *gaps, flipped(400, 0.1))
    )
    page = told(report_of([found]), labels={"sex.female": "Women"})
    [line] = [line for line in page.lines if line.name == "Subgroup discovery"]
    assert line.question == "Is a subgroup treated worse?" and line.found == "2 subgroups"
    assert line.interval == "worst: Women (sex = female) and income from 7,700 to below 26,200 (50 points)"
    # Of two counts of the same thing one is on the page.
    assert "3 subgroups" not in " ".join(own.sentence for own in page.shown)


def test_gaps_between_named_groups_stand_before_what_lies_further_beyond() -> None:
    leaks = Criterion(metric="attack_auc", direction="at_most", bound=0.01, source="s", set_by="w", set_at="2026")
    held_to = [leaks, *(c for c in load_criteria() if c.metric != leaks.metric)]
    page = first_page(report_of([privacy(), group_fairness(*gap())], held_to=held_to))
    assert [line.name for line in page.lines[:2]] == ["Demographic parity", "Membership inference (AUC)"]
    assert page.effect.endswith("Also failing: Membership inference (AUC).")
    assert re.sub(r"\s", " ", page.must_show) == (
        "For a release the next audit must show: Demographic parity at most 10 points (afam); "
        "Membership inference (AUC) at most 1 %."
    )


def test_the_counts_of_the_page_add_up() -> None:
    report = sample_report()
    page, s = first_page(report), report.summary
    judged = s.passed + s.fail + s.inconclusive
    assert f"{s.fail} of {judged} checks fail" in page.headline
    assert len(page.lines) + page.more_lines == judged + s.not_run


def test_skill_without_a_limit_of_its_own_has_no_tick() -> None:
    table = ProbeResult(
        probe="performance",
        pillar="performance",
        citation="",
        measurements=(
            Measurement(metric="roc_auc", estimate=Proportion(successes=900, n=1000), n_samples=1000, chance=0.5),
        ),
    )
    html = render_html(report_of([table]))
    worth = html[html.index('class="worth') : html.index("</p>", html.index('class="worth'))]
    assert "is-not-judged" in worth
    assert "icon-pass" not in worth and "is-pass" not in worth


def test_no_failure_is_pushed_off_the_page_by_passes_or_by_many_others() -> None:
    passes = [group_fairness(*(m for i in range(40) for m in gap((950, 960), (1000, 1000), f"c{i}")))]
    page = first_page(report_of([*passes, privacy(), group_fairness(*gap())]))
    assert page.lines[0].outcome is Outcome.FAIL and page.lines[0].about == "afam"
    assert len(page.lines) <= MOST_LINES
    assert len(page.lines) + page.more_lines >= 41


def test_what_nobody_bounded_is_told_where_the_interval_leaves_the_ideal_out_and_only_there() -> None:
    criteria = [c for c in load_criteria() if c.metric != "demographic_parity_difference"]
    report = report_of([group_fairness(*gap())], held_to=criteria)
    page = first_page(report)
    assert [t.sentence for t in page.shown] == ["Demographic parity: 46 points apart (35 to 57), afam"]
    assert 'criteria = [{ metric = "demographic_parity_difference"' in page.actions[0].command
    assert page.outcome is not Outcome.PASS
    quiet = first_page(report_of([group_fairness(*gap((90, 92)))], held_to=criteria))
    assert not quiet.shown


def test_what_a_language_model_is_shown_to_do_stands_on_both_first_screens(capsys: pytest.CaptureFixture[str]) -> None:
    """Of associations in its embeddings the strongest is told, with its test; what is not shown is not told."""
    tests = {"weat_5": 450, "weat_6": 600, "weat_7\x1b[2J": 300}
    found = [
        Measurement(
            metric="association_effect_size",
            method="seat",
            estimate=Proportion(successes=k, n=1000),
            n_samples=1000,
            ideal=0.0,
            at={"test": test},
        )
        for test, k in tests.items()
    ]
    said = [
        Measurement(
            metric=metric, method="built_in_pairs", estimate=Proportion(successes=k, n=1000), n_samples=1000, ideal=0.5
        )
        for metric, k in (("conditional_stereotype_score", 560), ("stereotype_score", 900))
    ]
    results = [
        ProbeResult(probe="embedding_association", pillar="language", citation="", measurements=tuple(found)),
        ProbeResult(probe="stereotype", pillar="language", citation="", measurements=tuple(said)),
    ]
    report = report_of(results)
    shown = [t.sentence for t in first_page(report).shown]
    assert [re.sub(r"\s", " ", sentence) for sentence in shown] == [
        "Stereotype score: conditional stereotype score 56 % (53 to 59)",
        "Embedding association: association effect size 0.60 (0.57 to 0.63), seat weat_6",
    ]
    print_report(report, [])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("shown ")]
    assert len(lines) == 2 and all_of("; no limit is set" in line and "\x1b" not in line for line in lines)
    level = [dataclasses.replace(m, estimate=Proportion(successes=500, n=1000)) for m in said]
    none = [dataclasses.replace(m, estimate=Proportion(successes=0, n=1000)) for m in found]
    quiet = report_of(
        [dataclasses.replace(r, measurements=tuple(m)) for r, m in zip(results, (none, level), strict=True)]
    )
    assert not first_page(quiet).shown
    print_report(quiet, [])
    assert "no limit is set" not in capsys.readouterr().out


def named(n: int, **change: object) -> Measurement:
    found = Measurement(
        metric="discovered_members",
        method="loss_threshold",
        estimate=Exact(known=float(n)),
        n_samples=4000,
        ideal=0.0,
        at={"false_discovery_rate": 0.05},
        too_few="It shows that somebody is hit, and never that nobody is.",
    )
    return dataclasses.replace(found, **change)


def members(*measurements: Measurement) -> ProbeResult:
    return ProbeResult(probe="membership_inference", pillar="privacy", citation="", measurements=measurements)


def test_training_rows_that_can_be_named_stand_before_all_else_that_nobody_bounded() -> None:
    criteria = [c for c in load_criteria() if c.metric != "demographic_parity_difference"]
    share = named(0, metric="discovered_share", estimate=Exact(known=0.066))
    rows = members(share, named(264), named(140, group={"afam": "yes"}))
    report = report_of([group_fairness(*gap()), rows], held_to=criteria)
    page = first_page(report)
    first, second = (re.sub(r"\s", " ", told.sentence) for told in page.shown)
    assert first.startswith("From the model's answers 264 training rows can be named as such;")
    assert first.endswith("at most 5 % are expected to be named wrongly")
    assert second.startswith("Demographic parity: 46 points apart")
    commands = [action.command for action in page.actions]
    assert commands[0].startswith("auditor train data/hmda_train.csv ") and "--dp-epsilon 3" in commands[0]
    assert commands[0].endswith(" --out private.pt")
    again = report.model_copy(update={"model": report.model.model_copy(update={"path": "models/private.pt"})})
    assert first_page(again).actions[0].command.endswith(" --out private-2.pt")
    assert tomllib.loads(commands[1].replace("...", "0.1"))["criteria"][0]["bound"] == 0.1
    bound = next(action.sentence for action in page.actions if "limits.toml" in action.sentence)
    assert f"--policy {DEFAULT_PROFILE},limits.toml" in bound
    own = ConfigurationFile(path="limits.toml", role="criteria", origin="given", sha256="6e" * 32)
    again = report.model_copy(update={"configuration": ConfigurationRecord(files=(own,))})
    bound = next(action.sentence for action in first_page(again).actions if "limits-2.toml" in action.sentence)
    assert "in limits-2.toml, with --policy limits.toml,limits-2.toml to keep" in bound
    # No criterion can judge how many are named, so none is asked for.
    assert '"demographic_parity_difference"' in commands[1] and none_of("discovered" in c for c in commands)
    line = next(line for line in remediation_of(report).lines if "named" in line.found)
    assert (line.found, line.interval) == ("264 training rows named", "exact")


def test_no_row_named_is_not_said_to_be_no_row_exposed() -> None:
    page = first_page(report_of([members(named(0))]))
    assert not page.shown
    html = render_html(report_of([members(named(0))]))
    assert page.nothing_shown.startswith("No training row was named") and page.nothing_shown in html
    # Of what nobody tried to name nothing is said.
    assert "training row" not in first_page(report_of([robust(flipped(0, 0.1))])).nothing_shown
    share = named(0, metric="discovered_share", estimate=Exact(known=0.066))
    assert not first_page(report_of([members(share, named(3, group={"afam": "yes"}))])).shown
    assert "one training row can be named" in first_page(report_of([members(named(1))])).shown[0].sentence


def test_what_is_recognised_without_a_false_alarm_is_shown_where_rows_are_named_too() -> None:
    """Of 2,000 members one lies above all others by chance in every second audit: alone that shows nothing."""
    none = named(
        0,
        metric="true_positive_rate_at_no_false_positive",
        estimate=Proportion(successes=31, n=2000),
        at={},
        too_few="",
    )
    asked = {"membership_inference": blank_result(PROBES["membership_inference"]).questions}

    def shown(*measurements: Measurement) -> list[str]:
        report = report_of([members(*measurements)]).model_copy(update={"questions": asked})
        return [told.sentence for told in first_page(report).shown]

    part = AttackPart(name="loss_threshold", share=1.0, estimate=Proportion(successes=31, n=2000))
    whole = dataclasses.replace(none, method="", estimate=StrongestAttack(attacks=(part,)))
    assert shown(whole, named(0)) == []
    # One attack's own rate is a part of that.
    larger = dataclasses.replace(none, estimate=Proportion(successes=50, n=2000))
    first, second = shown(larger, whole, named(128))
    assert "128" in first and "1.6" in second


def attacked(groups: list[str], **exposed: int) -> AuditReport:
    """Members and as many others, each side of these groups; each attack scores so many members above all others."""
    rng, n = np.random.default_rng(0), len(groups)
    scores = {name: rng.normal(size=2 * n) + 50.0 * (np.arange(2 * n) < k) for name, k in exposed.items()}
    head = MembershipHead.model_construct(
        n=2 * n, attacks=tuple(AttackHead(method=name, detail="") for name in scores), detail="", not_made={},
        n_shadows=0, known=False, unlike="", share_left_out=0.0, judges_decisions=False,
    )  # fmt: skip
    sides = MembershipScores(
        head=head, number=np.tile(np.arange(n) + 1, 2), is_member=np.arange(2 * n) < n,
        labels=np.zeros(2 * n, np.int64), right=None, scores=scores,
        scored=dict.fromkeys(scores, np.ones(2 * n, np.bool_)), groups={"sex": 2 * groups},
    )  # fmt: skip
    probe = PROBES["membership_inference"]
    assert isinstance(probe, type) and issubclass(probe, MembershipInference)
    report = report_of([members(*probe().measure_scores(sides))])
    return report.model_copy(update={"questions": {probe.name: blank_result(probe).questions}})


def test_without_a_false_alarm_the_page_says_the_largest_rate_over_the_attacks_that_were_tried() -> None:
    """The attack by which rows are named finds 40 of 1,000 members above all others, another one 140."""
    page = first_page(attacked(1_000 * ["f"], quantile_regression=40, loss_threshold=140))
    [said] = [re.sub(r"\s", " ", told.sentence) for told in page.shown if "false alarm" in told.sentence]
    assert said == "Without one false alarm 14 % of training rows are recognised (11 to 16)"


def test_a_rate_of_a_group_names_the_group_and_at_how_many_false_alarms() -> None:
    page = first_page(attacked(["b"] * 600 + ["a"] * 19_400, loss_threshold=80))
    [line] = [line for line in page.lines if line.outcome is Outcome.FAIL]
    assert re.sub(r"\s", " ", line.about) == "sex = b, at 0.1 % false alarms"
    # What the next audit must show names the rate, of which there are two.
    assert line.about in page.must_show


def test_a_judged_number_that_does_not_exist_is_no_number_on_both_first_screens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rare = Measurement(
        metric="true_positive_rate_at_fpr",
        method="rmia",
        estimate=Undefined(reason="too few"),
        n_samples=714,
        ideal=0.001,
        at={"false_positive_rate": 0.001},
    )
    report = report_of([members(rare)])
    lines = [line for line in first_page(report).lines if line.name.startswith("Membership inference at")]
    assert {(line.found, line.interval) for line in lines} == {("not computable", "")}
    print_report(report, [])
    assert "undefined" not in capsys.readouterr().out


def test_a_passing_attack_names_what_was_tried_and_what_that_leaves_open(capsys: pytest.CaptureFixture[str]) -> None:
    auc = Measurement(
        metric="attack_auc",
        method="rmia",
        estimate=area_under_curve(positives=np.arange(2000.0), negatives=np.arange(2000.0)),
        n_samples=4000,
        ideal=0.5,
        tried="Tried: loss_threshold; rmia with 8 shadow models. Not tried: label_only (not asked for).",
    )
    report = report_of([members(auc)])
    withstood = first_page(report).withstood
    assert "loss threshold; rmia with 8 shadow models. A stronger" in withstood and "label" not in withstood
    assert withstood in render_html(report) and withstood in render_markdown(report)
    print_report(report, [])
    assert "attacks " in capsys.readouterr().out
    leaks = dataclasses.replace(
        auc, estimate=area_under_curve(positives=np.arange(2000.0) + 900.0, negatives=np.arange(2000.0))
    )
    assert first_page(report_of([members(leaks)])).withstood == ""


def flipped(k: int, noise: float, **change: object) -> Measurement:
    found = Measurement(
        metric="flip_rate_under_noise",
        method="noise",
        estimate=Proportion(successes=k, n=1000),
        n_samples=1000,
        ideal=0.0,
        at={"noise": noise},
    )
    return dataclasses.replace(found, **change)


def robust(*measurements: Measurement) -> ProbeResult:
    return ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=measurements)


def test_the_worst_number_speaks_for_a_question_that_nobody_bounded() -> None:
    skill = flipped(0, 0.2, metric="accuracy_under_noise", estimate=Proportion(successes=300, n=1000), ideal=1.0)
    page = first_page(report_of([robust(skill, flipped(40, 0.1), flipped(170, 0.2))]))
    said = "Robustness to small changes: flip rate under noise 0.17 (0.15 to 0.19), noise 0.2"
    assert [re.sub(r"\s", " ", told.sentence) for told in page.shown] == [said]
    assert not first_page(report_of([robust(flipped(170, 0.2, too_few="It cannot be read."))])).shown
    held = Criterion(
        metric="accuracy_under_noise", direction="at_most", bound=0.9, source="s", set_by="b", set_at="2026-12-01"
    )
    assert not first_page(report_of([robust(skill, flipped(170, 0.2))], held_to=[held])).shown
    other = flipped(170, 0.2, metric="theil_index", at={})
    assert not first_page(report_of([group_fairness(other)], held_to=[held])).shown


def test_a_number_picked_among_many_must_be_shown_among_as_many() -> None:
    """At 95 % one of twenty numbers without a fault leaves its ideal by chance."""
    above = flipped(536, 0.0, metric="chance_rate", ideal=0.5)
    level = [flipped(500, float(i), metric="chance_rate", ideal=0.5) for i in range(1, 20)]
    alone, among = (first_page(report_of([robust(above, *others)])).shown for others in ([], level))
    assert alone and not among


def test_a_refusal_promises_nothing_and_offers_nothing() -> None:
    page = first_page(refused_report())
    assert "This is not a pass" in page.effect and not page.lines and not page.shown
    assert not page.actions


def test_nothing_judged_is_no_pass_on_the_first_page() -> None:
    page = first_page(report_of([ProbeResult(probe="performance", pillar="performance", citation="c")]))
    assert page.outcome is not Outcome.PASS and "Passes" not in page.headline


def test_what_is_for_other_kinds_of_model_is_a_count_and_no_reproach() -> None:
    other = ProbeResult(
        probe="bbq", pillar="language", citation="c", not_applicable="Needs a language model.", other_kind=True
    )
    asked = ProbeResult(probe="change", pillar="fairness", citation="c", not_applicable="Needs --reference MODEL.")
    report = report_of([group_fairness(*gap()), other, asked])
    page = first_page(report)
    assert "Not applicable, since an input is missing: Change against the reference model" in page.last
    assert "1 not asked: for other kinds of model or data" in render_html(report)
    html = render_html(report)
    listed = html[html.index("What was not applicable") : html.index("One probe is for other kinds of model or data")]
    assert "--reference" in listed and "language model" not in listed
    assert AuditReport.from_json(report.to_json()) == report
    assert [f.probe for f in report.findings if f.other_kind] == ["bbq"]


def test_a_picture_says_in_words_what_it_shows() -> None:
    line = first_page(report_of([group_fairness(*gap())])).lines[0]
    assert line.axis is not None
    assert line.axis.alt == f"{line.interval}, value 46; allowed is at most 10 points"
    assert 0 <= line.axis.low < line.axis.value < line.axis.high <= 1
    assert line.axis.bounds == (line.axis.allowed[1],) and line.axis.allowed[1] < line.axis.low


def test_bounds_of_both_sides_of_ratios_and_of_counts_are_drawn() -> None:
    within = Criterion(
        metric="demographic_parity_difference", direction="within", bound=(0.3, 0.5), source="s", set_by="b", set_at="d"
    )
    line = first_page(report_of([group_fairness(*gap())], held_to=[within])).lines[0]
    assert line.axis is not None and len(line.axis.bounds) == 2 and line.axis.alt.endswith("30 points to 50 points")


# ---- its words -----------------------------------------------------------------------------------------------------


def places(phrase: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(phrase) if name}


@pytest.mark.parametrize("language", SHIPPED)
def test_a_language_that_comes_along_is_complete(language: str) -> None:
    english, own = shipped(ENGLISH), shipped(language)
    assert set(own) == set(english)
    assert {key for key in own if places(own[key]) - places(english[key])} == set()
    assert all_of(f"question.{q.id}" in own for kind in PROBES.values() for q in blank_result(kind).questions)
    assert all_of(f"question.{q.id}" in own for questions in earlier_questions().values() for q in questions)


def test_every_probe_has_a_question_and_so_has_what_the_profile_requires() -> None:
    asked = {name: blank_result(kind).questions for name, kind in PROBES.items()}
    assert all_of(asked.values())
    assert all_of(any(q.fits(c.metric) for q in asked[c.probe]) for c in load_criteria() if c.probe in PROBES)


def test_a_record_of_before_records_held_questions_is_told_in_the_same_words() -> None:
    """What the probes ask now and what they asked then may come to differ: an old record keeps its questions."""
    report = sample_report()
    assert report.questions == {} and report.findings[0].probe in earlier_questions()
    asked = {f.probe: earlier_questions()[f.probe] for f in report.findings if f.probe in earlier_questions()}
    pages = [first_page(each) for each in (report, report.model_copy(update={"questions": asked}))]
    assert pages[0] == pages[1]


def test_a_record_says_what_its_numbers_answer_even_if_no_catalogue_knows_the_words() -> None:
    report = sample_report()
    strange = {f.probe: (AuditQuestion("what_nobody_asks"),) for f in report.findings}
    page = first_page(report.model_copy(update={"questions": strange}))
    assert none_of(line.question for line in page.lines)
    assert {line.name for line in page.lines if line.name} <= {f.probe.replace("_", " ") for f in report.findings}


@pytest.mark.parametrize("language", SHIPPED)
def test_every_phrase_of_every_sample_can_be_said(language: str) -> None:
    for report in (sample_report(), refused_report(), report_of([group_fairness(*gap())]), report_of([])):
        page = told(report, language=language)
        assert not page.fallback and not page.own_words
        render_html(report.model_copy(update={"about": About(language=language)}))


def test_german_says_the_same_with_its_own_numbers() -> None:
    report = report_of([group_fairness(*gap((50, 9_600), (100, 10_000)))])
    page = told(report, language="de", labels=LABELS)
    assert page.effect.startswith("African-American applicants (afam = yes) erhalten „no“")
    assert "Das liegt mit Sicherheit über der Grenze (10 Punkte)." in page.effect
    assert (
        Catalogue.for_language("de").count(12_345) == "12.345" and Catalogue.for_language("de").number(0.1234) == "0,12"
    )


def test_a_phrase_that_a_catalogue_lacks_is_english_and_said(tmp_path: Path) -> None:
    path = tmp_path / "fr.toml"
    path.write_text('[verdict]\nfail = "échoue"\n')
    words = words_of(str(path))
    page = told(report_of([group_fairness(*gap())]), language="fr", words=words)
    assert page.lines[0].verdict == "échoue" and page.lines[0].name == "Demographic parity"
    assert re.fullmatch(r"\d+ phrases are in English: the catalogue fr has none for them\.", page.fallback)


def test_words_that_bend_the_verdict_are_said_to_be_the_signers_own(tmp_path: Path) -> None:
    path = tmp_path / "kind.toml"
    path.write_text('[verdict]\nfail = "all well"\n[headline]\nfailed_only = "Passes"\nfailed_one = "Passes {m}"\n')
    report = report_of([group_fairness(*gap())])
    bent = report.model_copy(update={"about": about_of({}, Labels({}), str(path), "audit.toml")})
    for rendered in (render_html(bent), render_markdown(bent)):
        assert "catalogue of the signer" in rendered and "Exit code 1" in rendered
    assert "is-fail" in render_html(bent)
    assert "catalogue of the signer" not in render_html(report)


def test_words_under_the_name_of_a_shipped_language_are_said_to_be_the_signers_own() -> None:
    report = report_of([group_fairness(*gap())])
    bent = report.model_copy(update={"about": About(language="en", words={"verdict.fail": "pass"})})
    assert "catalogue of the signer" in render_html(bent)


def test_bounds_are_the_tools_own_only_where_it_ships_them() -> None:
    shipped = report_of([group_fairness(*gap())], held_to=load_criteria())
    assert "default limits of the tool, not your policy" in first_page(shipped).subtitle
    lax = [replaced(c, bound=0.9) if c.metric == "demographic_parity_difference" else c for c in load_criteria()]
    said = first_page(report_of([group_fairness(*gap())], held_to=lax)).subtitle
    assert "limits set by “auditor (built-in convention, not law)”" in said
    assert "default limits of the tool, not your policy" not in said


def test_parts_of_what_is_judged_together_are_bounded_with_it() -> None:
    whole, *_ = gap()
    part = dataclasses.replace(whole, method="other", sensitive=())
    judged = dataclasses.replace(whole, sensitive=())
    held = [c for c in load_criteria() if c.metric == "demographic_parity_difference"]
    held = [replaced(c, method="between_groups") for c in held]
    assert not first_page(report_of([group_fairness(judged, part)], held_to=held)).shown


def test_long_names_do_not_break_the_page() -> None:
    page = first_page(report_of([group_fairness(*gap(feature="c" * 460))]))
    assert max(len(line.about) for line in page.lines) <= 60
    assert len(page.effect) < 500


def test_labels_stand_beside_what_they_name_so_that_swapped_ones_can_be_seen() -> None:
    report = report_of([group_fairness(*gap())])
    swapped = report.model_copy(
        update={"about": About(labels={"afam.yes": "other applicants", "afam.no": "African-American applicants"})}
    )
    html = render_html(swapped)
    called = html[html.index("Called here") :]
    assert called.index("afam.yes") < called.index("other applicants") < called.index("afam.no")


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ("[verdict]\nfial = 'x'\n", ConfigError, "did you mean 'verdict.fail'"),
        ("[verdict]\nrows = '{m} rows'\n", ConfigError, "has no place {m}"),
        ("[verdict]\nrows = 'rows'\n", ConfigError, "must keep its place {n}"),
        ("[found]\nmembers = '0.5 {value}'\n", ConfigError, "without a digit"),
        ("[verdict]\nfail = ' '\n", ConfigError, "must be words"),
        ("[number]\ndecimal = ''\n", ConfigError, "must be one of"),
        ("[number]\ndecimal = ','\n", ConfigError, "must differ"),
        ("[verdict]\nfail = '" + 161 * "x" + "'\n", ConfigError, "at most 160 characters"),
        ("[verdict]\nrows = '{n.__class__} rows'\n", ConfigError, "has no place {n.__class__}"),
        ("[form]\nrange = '\u202e{low} to {high}'\n", ConfigError, "turns words and numbers around"),
        ("[form]\nrange = '{low} \u00bd {high}'\n", ConfigError, "without a digit"),
        ("[form]\nrange = '{low}{high}'\n", ConfigError, "two numbers would read as one"),
        ("[verdict]\nfail = 'Pass'\n", ConfigError, "the word of another outcome"),
        ("[verdict]\nfail = 'grün'\npass = ' GRÜN'\n", ConfigError, "the word of another outcome"),
        ("[verdict]\nrows = '{n!r} rows'\n", ConfigError, "a name alone"),
        ("[verdict]\nrows = '{n'\n", ConfigError, "written twice"),
        ("[verdict]\nrows = 3\n", ConfigError, "must be words"),
        ("[verdict\n", ConfigError, "cannot be read as TOML"),
    ],
)
def test_a_catalogue_that_is_none_is_refused(tmp_path: Path, content: str, error: type[Exception], said: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(content)
    with pytest.raises(error, match=re.escape(said)):
        words_of(str(path))


def test_words_that_no_catalogue_may_hold_are_not_taken_from_a_record_either() -> None:
    bad = {
        "form.range": "{low:>99999999} {high}", "form.at_least": "{low.__class__}", "form.at_most": "no more",
        "verdict.rows": "{n", "verdict.near": "\u202etupni", "verdict.fail": "pass", "nothing.such": "x",
        "verdict.alone": "fine, alone",
    }  # fmt: skip
    say = About(language="xx", words=bad).catalogue
    assert dict(say.own) == {"verdict.alone": "fine, alone"}
    assert say.say("form.range", low="1", high="2") == "1 to 2" and say.say("verdict.fail") == "fails"
    render_html(report_of([group_fairness(*gap())]).model_copy(update={"about": About(language="xx", words=bad)}))


def test_an_unknown_language_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Known: en, de"):
        words_of("xx")
    with pytest.raises(UsageError, match="no such file"):
        words_of(str(tmp_path / "none.toml"))


# ---- whom and what it is about -------------------------------------------------------------------------------------


def test_identity_stands_on_the_page_and_what_is_absent_is_not_guessed() -> None:
    report = report_of([group_fairness(*gap())])
    page = told(
        report,
        organisation={"name": "ACME Bank"},
        document={"id": "MA-1", "version": "1.0", "classification": "confidential"},
        model={"name": "Mortgage model", "version": "3.2"},
        system={"purpose": "Recommends loans"},
    )
    assert page.organisation == "ACME Bank" and page.document == "Model audit MA-1, version 1.0, confidential"
    assert page.title == "Audit of Mortgage model, version 3.2"
    assert page.subtitle[0] == "as stated: Recommends loans"
    plain = first_page(report)
    assert plain.organisation == "" and plain.document == "Model audit"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"nmae": "x"}}, "did you mean 'name'"),
        ({"organisation": {"name": 3}}, "must be text"),
        ({"system": "x"}, "must be a table"),
        ({"data": {"source": "x" * 501}}, "at most 500 characters"),
    ],
)
def test_identity_that_is_none_is_refused(content: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        about_of(content, Labels({}), "en", "audit.toml")


def test_a_record_that_says_nothing_of_identity_is_as_it_was() -> None:
    report = report_of([group_fairness(*gap())])
    assert about_of({}, Labels({}), "en", "audit.toml") is None
    assert '"about"' not in report.to_json()
    said = report.model_copy(update={"about": About(labels={"afam": "x"})})
    assert AuditReport.from_json(said.to_json()) == said and '"organisation"' not in said.to_json()


def test_hostile_names_are_inert_on_the_first_page() -> None:
    about = About.model_validate(
        {
            "organisation": {"name": HOSTILE[0]},
            "model": {"name": HOSTILE[5], "version": HOSTILE[2]},
            "labels": {"sex": HOSTILE[0], "race": HOSTILE[5], "sex.female": HOSTILE[6]},
        }
    )
    report = report_of([fairness(hostile=True)]).model_copy(update={"about": about})
    html = render_html(report)
    assert "<script>alert" not in html and "<img src=x" not in html and "\u202e" not in html
    assert html.count("<script>") == 1
    measured = ProbeResult(
        probe="<b>own</b>",
        pillar="fairness",
        citation="c",
        measurements=(Measurement(metric="<i>m</i>", estimate=Exact(known=3.0), n_samples=1),),
    )
    lost = ProbeResult(probe="<u>x</u>", pillar="fairness", citation="c", not_run="<s>")
    assert "<b>own" not in render_html(report_of([measured, lost]))


def test_checks_of_the_file_and_of_arithmetic_are_no_questions_unless_they_fail() -> None:
    page = first_page(sample_report())
    assert "Completeness of attributions" not in {line.name for line in page.lines}


def next_of(report: AuditReport, command: str, **model: str) -> list[str]:
    """The commands under "Do next" of a record whose audit was started by this command."""
    environment = report.environment.model_copy(update={"command": command})
    changed = {"environment": environment, "model": report.model.model_copy(update=model)}
    return [action.command for action in first_page(report.model_copy(update=changed)).actions]


def test_what_to_do_next_is_a_whole_command_with_what_the_audit_was_told() -> None:
    leaks = Criterion(metric="attack_auc", direction="at_most", bound=0.3, source="s", set_by="w", set_at="2026")
    report = report_of([privacy(), group_fairness(*gap())], held_to=[*load_criteria(), leaks])
    rows, groups = "--target deny --positive no", "--sensitive sex --sensitive race --sensitive region"
    repair = (
        "auditor mitigate reweighing models/mortgage_approval.pt --train data/hmda_train.csv --data data/hmda_test.csv "
        f"{rows} {groups}"
    )
    private = f"auditor train data/hmda_train.csv {rows}"
    last = "--dp-epsilon 3 --out private.pt"
    told = "--features 'a b,c' --bins=age=18,30 --copies-are-real"
    assert next_of(report, f"auditor scan m {told} --format json") == [
        f"{repair} --features 'a b,c' --bins age=18,30 --copies-are-real --out fairer.pt",
        f"{private} --features 'a b,c' {last}",
        "auditor start data/hmda_test.csv",
    ]
    # A text or a picture is no row of a table to train on.
    assert next_of(report, "auditor scan m --text said")[:2] == [f"{repair} --text said --out fairer.pt", ""]
    assert next_of(report, "auditor scan m", format="ONNX model")[:2] == ["auditor mitigate list", ""]
    # Code that somebody else's command would run is nothing to copy unseen, and no other program's flags are.
    assert next_of(report, "auditor scan m --predict own:f")[:2] == ["auditor mitigate list", ""]
    assert next_of(report, "rm --config x")[0] == f"{repair} --out fairer.pt"
    # Nothing stands for a file that the audit was not given.
    untold = report.model_copy(update={"data": report.data.model_copy(update={"train_path": None})})
    assert next_of(untold, "auditor scan m")[:2] == ["auditor mitigate list", ""]
    assert "--train" in first_page(untold).actions[0].sentence
    # What no training rows would change does not ask for them.
    frozen = untold.model_copy(update={"model": report.model.model_copy(update={"format": "ONNX model"})})
    assert "--train" not in first_page(frozen).actions[0].sentence
    in_python = report.model_copy(update={"data": report.data.model_copy(update={"path": None})})
    assert next_of(in_python, "")[-1] == "" and next_of(in_python, "auditor scan m")[0] == "auditor mitigate list"


def test_the_first_remedy_is_that_of_the_headline() -> None:
    leaks = Criterion(metric="attack_auc", direction="at_most", bound=0.3, source="s", set_by="w", set_at="2026")
    both = [privacy(), group_fairness(*gap())]
    gap_first = next_of(report_of(both, held_to=[*load_criteria(), leaks]), "auditor scan m")
    assert [words.split()[1] for words in gap_first[:2]] == ["mitigate", "train"]
    small = [c for c in load_criteria() if c.metric != "demographic_parity_difference"]
    narrow = replaced(next(c for c in load_criteria() if c.metric == "demographic_parity_difference"), bound=0.45)
    leak_first = next_of(report_of(both, held_to=[*small, narrow, leaks]), "auditor scan m")
    assert [words.split()[1] for words in leak_first[:2]] == ["train", "mitigate"]


def test_the_plan_is_registered_by_the_configuration_that_was_obeyed() -> None:
    report = report_of([group_fairness(*gap())])
    assert next_of(report, "")[-1].startswith("auditor start models/mortgage_approval.pt data/hmda_test.csv --target ")
    unnamed = report.model_copy(update={"model": report.model.model_copy(update={"path": None})})
    assert next_of(unnamed, "")[-1] == "auditor start data/hmda_test.csv"
    obeys = report.model_copy(update={"configuration": obeyed()})
    assert next_of(obeys, "")[-1] == "auditor evidence register audit.toml"
    media = report.model_copy(update={"data": report.data.model_copy(update={"path": "pictures"})})
    assert next_of(media, "")[-1] == ""


def test_what_did_not_run_is_followed_by_what_to_do_about_it() -> None:
    lost = ProbeResult(probe="robustness", pillar="robustness", citation="c", not_run="It ran out of time: raise it.")
    (action, *_) = first_page(report_of([lost])).actions
    assert "robustness" in action.sentence and "It ran out of time: raise it" in action.sentence
    own = Criterion(
        metric="attack_auc", direction="at_most", bound=0.55, source="policy", set_by="Risk", set_at="2026-01-01"
    )
    (action, *_) = first_page(report_of([], held_to=[own])).actions
    assert "attack_auc" in action.sentence and action.command == "auditor probes attack_auc"


def test_the_page_says_what_the_model_decides_unless_somebody_stated_its_purpose() -> None:
    base = sample_report()
    model = base.model.model_copy(update={"classes": ("no", "yes")})
    data = base.data.model_copy(update={"target": "deny"})
    report = base.model_copy(update={"model": model, "data": data})
    said = first_page(report.model_copy(update={"about": About(labels={"deny": "application", "deny.no": "approved"})}))
    assert said.subtitle[0] == "decides application: “approved” or “yes”"
    many = model.model_copy(update={"classes": tuple("abcdefgh")})
    assert none_of("decides" in part for part in first_page(report.model_copy(update={"model": many})).subtitle)


def test_a_model_without_rows_is_told_how_many_samples_it_takes_and_not_rows() -> None:
    found = report_of([group_fairness(*gap((50, 52)))])
    report = found.model_copy(update={"data": found.data.model_copy(update={"n_rows": 200})})
    alone = report.model_copy(update={"data": report.data.model_copy(update={"n_rows": None})})
    needed = max(f.n_required or 0 for f in report.findings if f.outcome == "INCONCLUSIVE")
    assert needed > 200
    for about, what in ((report, "rows"), (alone, "samples")):
        page = first_page(about)
        [line] = [line for line in page.lines if line.outcome == "INCONCLUSIVE"]
        assert line.small == f"needs {needed:,} {what} in all"
        assert any(
            action.sentence.startswith(f"Test with at least {needed:,} {what} in all") for action in page.actions
        )
    # Where the samples at hand are more than it takes, more of them settle nothing.
    near = [f.model_copy(update={"n_samples": needed}) for f in alone.findings]
    actions = first_page(alone.model_copy(update={"findings": tuple(near)})).actions
    assert none_of("samples in all" in action.sentence for action in actions)


def test_a_number_that_is_open_for_another_reason_than_its_interval_says_that_reason() -> None:
    whole = Proportion(successes=90, n=100)
    limit = [criterion("accuracy", "at_least", 0.5)]

    def told(too_few: str) -> str:
        found = Measurement(metric="accuracy", method="log", estimate=whole, n_samples=100, too_few=too_few)
        result = dataclasses.replace(blank_result(PROBES["recorded_evaluation"]), measurements=(found,))
        report = report_of([result], held_to=limit)
        return first_page(report, Catalogue.for_language(ENGLISH)).effect

    assert "The log does not prove its numbers." in told("The log does not prove its numbers. More of it.")
    assert "More of it" not in told("The log does not prove its numbers. More of it.")
    assert "Whether it is outside" not in told("The log does not prove its numbers.")
