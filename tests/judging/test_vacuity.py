"""A model that tells no rows apart passes nothing: constant answers, no skill, a group that is answered alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Recorded
from auditor.data.group_counts import count_groups
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judgement import Judgement, no_skill, why_empty
from auditor.judging.judging import judge
from auditor.judging.measurement import Alike, Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.recorded_model import RecordedClassifier
from auditor.models.regression_model import AuditedRegressor
from auditor.report.comparing.compare_audits import compare
from auditor.report.record.audit_report import AuditReport, ExitCode
from auditor.report.record.summary_lines import worth_of
from auditor.run.run_audit import alike_answers, alike_in_counts, no_data, run_audit
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from probes import PROBES
from tests.quantifiers import all_of, none_of
from tests.toys.models import criterion

GAP = criterion("demographic_parity_difference", "at_most", 0.10)
GAPLESS = Proportion(successes=0, n=2_000)


def rows(n: int = 4_000, seed: int = 0, *, labels: bool = True, base: float = 0.5) -> AuditData:
    """Rows whose label is whether ``x`` is large; ``noise`` has nothing to do with anything, nor has ``sex``."""
    rng = np.random.default_rng(seed)
    x, noise = rng.random(n), rng.random(n)
    return AuditData.from_arrays(
        pd.DataFrame({"x": x, "noise": noise}),
        (x > 1.0 - base).astype(int) if labels else None,
        classes=("0", "1"),
        sensitive_features={"sex": np.where(rng.random(n) < 0.5, "f", "m").tolist()},
    )


def scoring(column: str | None) -> AuditedModel:
    """A model whose score is a column, or the same for everybody."""
    return AuditedModel.from_callable(
        lambda X: np.full(len(X), 0.2) if column is None else X[column].to_numpy(), classes=("0", "1")
    )


def audited(
    model: AuditedModel, data: AuditData | None, *probes: str, criteria: list[Criterion] | None = None
) -> AuditReport:
    return run_audit(model, data, [PROBES[name]() for name in probes], criteria)


def outcomes(report: AuditReport, metric: str) -> list[Outcome]:
    return [f.outcome for f in report.findings if f.metric == metric and f.criterion is not None]


# ---- the whole chain -----------------------------------------------------------------------------------------------


def test_a_model_with_skill_passes() -> None:
    report = audited(scoring("x"), rows(), "performance", "group_fairness", "counterfactual_fairness")
    assert outcomes(report, "demographic_parity_difference") == [Outcome.PASS]
    assert outcomes(report, "roc_auc") == [Outcome.PASS]
    assert report.exit_code == ExitCode.PASSED


def test_a_constant_model_passes_no_gap_and_does_not_exit_0() -> None:
    report = audited(scoring(None), rows(), "performance", "group_fairness", "counterfactual_fairness", "robustness")
    assert none_of(f.outcome is Outcome.PASS for f in report.findings)
    gap = next(f for f in report.findings if f.metric == "demographic_parity_difference")
    assert gap.outcome is Outcome.INCONCLUSIVE and "answers the same for all 4,000 rows" in gap.reason
    # The numbers stay what they are.
    assert gap.value == 0.0 and gap.p_pass is not None and gap.p_pass < 0.001
    assert report.exit_code == ExitCode.INCONCLUSIVE


def test_what_says_nothing_of_the_model_is_not_waived() -> None:
    report = audited(scoring(None), rows(), "group_fairness", criteria=[GAP])
    assert report.verdict(allow_inconclusive=True) == ExitCode.INCONCLUSIVE
    # What the rows could not tell is.
    unsettled = [f for f in report.findings if f.outcome is Outcome.INCONCLUSIVE]
    assert [bool(f.vacuous) for f in unsettled] == [True]
    bare = report.model_copy(update={"findings": tuple(f.model_copy(update={"vacuous": ""}) for f in report.findings)})
    assert bare.verdict(allow_inconclusive=True) == ExitCode.PASSED


def test_so_it_is_by_criteria_of_ones_own_and_whichever_probe_is_asked() -> None:
    for probes in (["group_fairness"], ["group_fairness", "performance"]):
        report = audited(scoring(None), rows(), *probes, criteria=[GAP])
        assert outcomes(report, "demographic_parity_difference") == [Outcome.INCONCLUSIVE]
        assert report.exit_code == ExitCode.INCONCLUSIVE


def test_so_it_is_without_labels() -> None:
    report = audited(scoring(None), rows(labels=False), "performance", "group_fairness")
    assert outcomes(report, "demographic_parity_difference") == [Outcome.INCONCLUSIVE]
    known = next(f for f in report.findings if f.probe == "performance")
    assert known.outcome is Outcome.NOT_APPLICABLE and "--target" in known.reason


def test_without_labels_skill_is_not_known_and_nothing_follows() -> None:
    report = audited(scoring("noise"), rows(labels=False), "performance", "group_fairness")
    assert outcomes(report, "demographic_parity_difference") == [Outcome.PASS]


@pytest.mark.parametrize("criteria", [None, [GAP]])
def test_a_model_that_answers_at_random_passes_no_gap(criteria: list[Criterion] | None) -> None:
    report = audited(scoring("noise"), rows(), "performance", "group_fairness", criteria=criteria)
    gap = next(f for f in report.findings if f.metric == "demographic_parity_difference")
    assert gap.outcome is Outcome.INCONCLUSIVE and "shows no skill (balanced_accuracy is" in gap.reason
    assert report.exit_code == ExitCode.INCONCLUSIVE


def test_decisions_without_skill_pass_no_gap_whatever_scores_beside_them_know() -> None:
    """Good scores recorded beside decisions that a coin made, and a threshold that decides nearly all rows the same."""
    rng = np.random.default_rng(0)
    n = 6_000
    truth, group = rng.integers(0, 2, n), rng.choice(["f", "m"], n)
    score = np.clip(0.5 + 0.25 * (2 * truth - 1) + 0.2 * rng.standard_normal(n), 0.01, 0.99)
    X = pd.DataFrame({"a": rng.normal(size=n)})
    nearly = np.ones(n, np.int64)
    nearly[rng.choice(n, 60, replace=False)] = 0
    for decided, passes in ((rng.integers(0, 2, n), False), (nearly, False), ((score > 0.5).astype(np.int64), True)):
        rows_ = AuditData(
            X=X, y_true=truth, classes=("0", "1"), positive=1, sensitive_features=pd.DataFrame({"sex": group}),
            recorded=Recorded(scores=np.column_stack([1 - score, score]), decisions=decided),
        )  # fmt: skip
        model = RecordedClassifier(classes=["0", "1"], features=["a"])
        report = run_audit(model, rows_, [PROBES["performance"](), PROBES["group_fairness"]()])
        assert outcomes(report, "roc_auc") == [Outcome.PASS]
        gaps = outcomes(report, "demographic_parity_difference")
        assert gaps == [Outcome.PASS if passes else Outcome.INCONCLUSIVE], decided
        assert (report.exit_code == ExitCode.PASSED) is passes
        said = worth_of(report)
        assert said is not None and ("its decisions none" in said.skill) is not passes


def test_a_fail_stays() -> None:
    data = rows()
    assert data.sensitive_features is not None and isinstance(data.X, pd.DataFrame)
    data = replace(data, X=data.X.assign(sex=(data.sensitive_features["sex"] == "f").astype(float)))
    report = audited(scoring("sex"), data, "performance", "group_fairness")
    assert outcomes(report, "demographic_parity_difference") == [Outcome.FAIL]
    assert report.exit_code == ExitCode.FAILED


def test_scores_that_differ_behind_decisions_that_do_not() -> None:
    # Nobody is decided for: what is said of decisions is empty, what is said of scores is not.
    half = AuditedModel.from_callable(lambda X: 0.4 * X["x"].to_numpy(), classes=("0", "1"))
    own = [GAP, criterion("auc_difference", "at_most", 0.10)]
    report = audited(half, rows(), "performance", "group_fairness", "score_fairness", criteria=own)
    assert outcomes(report, "demographic_parity_difference") == [Outcome.INCONCLUSIVE]
    assert outcomes(report, "auc_difference") == [Outcome.PASS]


def test_a_regression_that_predicts_one_number_passes_no_gap() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(4_000)
    groups = {"sex": np.where(rng.random(4_000) < 0.5, "f", "m").tolist()}
    data = AuditData.for_regression(pd.DataFrame({"x": x}), x, sensitive_features=groups)
    own = [criterion("prediction_kolmogorov_smirnov", "at_most", 0.10)]
    for model, expected in (
        (lambda X: X["x"].to_numpy(), Outcome.PASS),
        (lambda X: np.full(len(X), 0.5), Outcome.INCONCLUSIVE),
    ):
        wrapped: Any = AuditedRegressor.from_callable(model)
        report = audited(wrapped, data, "performance", "regression_fairness", criteria=own)
        assert outcomes(report, "prediction_kolmogorov_smirnov") == [expected]


def test_an_untrained_language_model_passes_no_stereotype_score() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from tests.probes.privacy.memorization.toys import char_tokenizer

    tokenizer = char_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=len(tokenizer), n_layer=1, n_head=1, n_embd=8, n_positions=256)
        model = AuditedLanguageModel(GPT2LMHeadModel(config).eval(), tokenizer, batch_tokens=4096)
    wide = criterion("stereotype_score", "within", (0.05, 0.95))
    [skill] = [
        m
        for m in PROBES["performance"]().measure(model, no_data(), np.random.default_rng(0))
        if m.chance is not None and not m.at
    ]
    assert skill.metric == "word_order_accuracy"
    score = Measurement(metric="stereotype_score", estimate=skill.estimate, n_samples=64, ideal_when_same="scores")
    results = [
        ProbeResult(probe="performance", pillar="performance", citation="", measurements=(skill,)),
        ProbeResult(probe="stereotype", pillar="language", citation="", measurements=(score,)),
    ]
    assert judge(results[1:], [wide])[0][0].outcome is Outcome.PASS
    judged = next(f for f in judge(results, [wide])[0] if f.probe == "stereotype")
    assert judged.outcome is Outcome.INCONCLUSIVE and "no skill" in judged.reason


# ---- a group that is answered alike --------------------------------------------------------------------------------


def by_group(blind: str, *, pure: bool, labels: bool = True) -> tuple[AuditedModel, AuditData]:
    """A model that is right but for a group of 2,000, all of whom it rejects; ``pure``: rightly so.

    Few are selected anywhere, so that the gap is small.
    """
    n = 4_000
    rng = np.random.default_rng(0)
    x = rng.random(n)
    sex = np.where(np.arange(n) % 2 == 0, "f", "m")
    truth = (x > 0.97) & ~(pure & (sex == blind))
    decided = (x > 0.97) & (sex != blind)
    data = AuditData.from_arrays(
        pd.DataFrame({"decided": decided.astype(float)}),
        truth.astype(int) if labels else None,
        classes=("0", "1"),
        sensitive_features={"sex": sex.tolist()},
    )
    return AuditedModel.from_callable(lambda X: X["decided"].to_numpy(), classes=("0", "1")), data


def test_a_group_that_is_answered_alike_passes_no_gap() -> None:
    report = audited(*by_group("f", pure=False), "performance", "group_fairness", criteria=[GAP])
    gap = next(f for f in report.findings if f.metric == "demographic_parity_difference")
    assert gap.outcome is Outcome.INCONCLUSIVE and "all 2,000 rows of sex = f alike" in gap.reason


def test_a_group_of_one_class_that_is_decided_rightly_does() -> None:
    report = audited(*by_group("f", pure=True), "performance", "group_fairness", criteria=[GAP])
    assert outcomes(report, "demographic_parity_difference") == [Outcome.PASS]


def test_without_labels_nobody_knows_that_it_is_right() -> None:
    report = audited(*by_group("f", pure=True, labels=False), "group_fairness", criteria=[GAP])
    assert outcomes(report, "demographic_parity_difference") == [Outcome.INCONCLUSIVE]


def test_rows_and_counts_say_the_same_of_groups() -> None:
    measured = [
        Measurement(metric="gap", estimate=GAPLESS, n_samples=1, sensitive=names)
        for names in (("sex",), ("sex", "age"))
    ]
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(1, 30))
        sex, age = rng.integers(0, 2, n), rng.integers(0, 2, n)
        decided, truth = rng.integers(0, 1 + rng.integers(1, 3), n), rng.integers(-1, 3, n)
        truth = np.where(rng.random(n) < 0.5, decided, truth)
        data = AuditData(
            X=pd.DataFrame({"d": decided.astype(float)}),
            y_true=truth,
            classes=("a", "b", "c"),
            sensitive_features=pd.DataFrame({"sex": sex.astype(str), "age": age.astype(str)}),
        )
        model = AuditedModel.from_callable(lambda X: np.eye(3)[X["d"].astype(int)], classes=("a", "b", "c"))
        counts = count_groups(
            decided, truth, [(sex, ["0", "1"]), (age, ["0", "1"])], features=["sex", "age"], classes=["a", "b", "c"]
        )
        by_rows, by_counts = alike_answers(model, data, measured), alike_in_counts(counts, measured)
        assert sorted(map(_key, by_rows)) == sorted(map(_key, by_counts))


def _key(alike: Alike) -> tuple[int, str]:
    return alike.n, str(sorted(alike.group.items()))


def test_few_rows_are_asked_where_no_probe_asked_for_all() -> None:
    asked: list[int] = []

    def predict(X: pd.DataFrame) -> Any:
        asked.append(len(X))
        return X["x"].to_numpy()

    model = AuditedModel.from_callable(predict, classes=("0", "1"))
    data = rows(50_000)
    measured = [Measurement(metric="flips", estimate=GAPLESS, n_samples=1, ideal_when_same="decisions")]
    assert alike_answers(model, data, measured) == ()
    assert sum(asked) < 5_000
    assert alike_answers(model, data, [replace(measured[0], ideal_when_same=None)]) == ()
    model.outputs(data)
    already = sum(asked)
    assert alike_answers(model, data, measured) == () and sum(asked) == already


# ---- the rule itself -----------------------------------------------------------------------------------------------


def judged(measured: Measurement, *alike: Alike, skill: Measurement | None = None) -> Judgement:
    """One number held to 0.5, beside a number of skill."""
    own = ProbeResult(probe="p", pillar="fairness", citation="", measurements=(measured,), alike=alike)
    other = () if skill is None else (skill,)
    results = [own, ProbeResult(probe="s", pillar="performance", citation="", measurements=other)]
    return judge(results, [criterion(measured.metric, "at_most", 0.5, probe="p")])[0][0]


def gap(**more: Any) -> Measurement:
    return Measurement(metric="gap", estimate=GAPLESS, n_samples=2_000, **{"sensitive": ("sex",)} | more)


def skilled(successes: int, **more: Any) -> Measurement:
    estimate = Proportion(successes=successes, n=100)
    return Measurement(metric="skill", estimate=estimate, n_samples=100, **{"chance": 0.5} | more)


def test_what_a_number_rests_on() -> None:
    assert gap().rests_on == "decisions"
    assert gap(sensitive=()).rests_on is None
    assert gap(sensitive=(), ideal_when_same="scores").rests_on == "scores"
    assert gap(ideal_when_same="nothing").rests_on is None


@pytest.mark.parametrize(
    ("measured", "alike", "empty"),
    [
        (gap(), Alike(answer="decisions", n=9), True),
        (gap(), Alike(answer="scores", n=9), True),
        (gap(ideal_when_same="scores"), Alike(answer="scores", n=9), True),
        (gap(ideal_when_same="scores"), Alike(answer="decisions", n=9), False),
        (gap(ideal_when_same="nothing"), Alike(answer="scores", n=9), False),
        (gap(), Alike(answer="decisions", n=9, group={"sex": "f"}), True),
        (gap(), Alike(answer="decisions", n=9, group={"race": "a"}), False),
        (gap(sensitive=("sex", "race")), Alike(answer="decisions", n=9, group={"sex": "f"}), False),
        (gap(sensitive=("sex", "race")), Alike(answer="decisions", n=9, group={"race": "a", "sex": "f"}), True),
        (gap(ideal_when_same="scores"), Alike(answer="decisions", n=9, group={"sex": "f"}), False),
        (
            gap(sensitive=(), group={"sex": "m"}, ideal_when_same="decisions"),
            Alike(answer="decisions", n=9, group={"sex": "f"}),
            True,
        ),
    ],
)
def test_which_numbers_alike_answers_empty(measured: Measurement, alike: Alike, empty: bool) -> None:
    assert bool(why_empty(measured, [alike], {})) is empty


@pytest.mark.parametrize(("successes", "shown"), [(50, False), (30, False), (55, False), (80, True)])
def test_skill_is_what_is_shown_to_be_above_chance(successes: int, shown: bool) -> None:
    found = judged(gap(), skill=skilled(successes))
    assert found.outcome is (Outcome.PASS if shown else Outcome.INCONCLUSIVE)


def test_what_says_nothing_of_skill() -> None:
    assert judged(gap(), skill=skilled(0, chance=None)).outcome is Outcome.PASS
    assert judged(gap(), skill=skilled(0, group={"sex": "f"})).outcome is Outcome.PASS
    unknown = replace(skilled(0), estimate=Undefined(reason="all of one class"))
    assert judged(gap(), skill=unknown).outcome is Outcome.PASS
    assert no_skill([]) == ""


def test_one_number_of_skill_will_do() -> None:
    shown = [(skilled(50), (0.4, 0.6)), (skilled(80), (0.7, 0.9))]
    assert no_skill(shown) == ""
    assert "skill is 0.5 [0.4, 0.6], not shown to be above 0.5" in no_skill(shown[:1])


def test_a_fail_an_inconclusive_and_an_unjudged_one_stay() -> None:
    alike = Alike(answer="scores", n=9)
    for successes, n, outcome in ((900, 1_000, Outcome.FAIL), (5, 10, Outcome.INCONCLUSIVE)):
        estimate = Proportion(successes=successes, n=n)
        found = judged(replace(gap(), estimate=estimate), alike)
        assert found.outcome is outcome and "same for all" not in found.reason
    unheld = judge([ProbeResult(probe="p", pillar="fairness", citation="", measurements=(gap(),), alike=(alike,))], [])
    assert unheld[0][0].outcome is Outcome.NOT_JUDGED


def test_the_default_profile_asks_for_skill_once_of_each_kind_of_model() -> None:
    own = [c for c in load_criteria() if c.probe == "performance"]
    assert len(own) == 4 and all_of(c.direction == "at_least" and c.built_in for c in own)
    report = audited(scoring("x"), rows(), "performance")
    assert [f.metric for f in report.findings if f.criterion is not None] == ["roc_auc"]


def test_a_comparison_does_not_call_it_better() -> None:
    data = rows()
    assert data.sensitive_features is not None and isinstance(data.X, pd.DataFrame)
    data = replace(data, X=data.X.assign(sex=(data.sensitive_features["sex"] == "f").astype(float)))
    names = ("performance", "group_fairness")
    before, gone, fair = (audited(scoring(column), data, *names) for column in ("sex", None, "x"))
    for after, verdict in ((gone, "no change shown"), (fair, "better")):
        found = compare(before, after)
        gaps = [row.verdict for row in found.rows if row.metric == "demographic_parity_difference"]
        assert gaps == [verdict]
        assert any(remark.startswith("Not better, but empty: demographic") for remark in found.remarks) is (
            after is gone
        )
