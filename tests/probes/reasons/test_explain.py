"""Reasons of single rows: equal to hand-computed ones, refused where they are not the row's, and never silent."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from auditor.core.errors import ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.row_explanations import ExplainedRow, Faithfulness, RecourseSearch, SensitiveNote
from auditor.loading.estimators import EstimatorModel
from auditor.loading.job_specs import ExplainSpec
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.regression_model import AuditedRegressor
from auditor.report.reasons_page import Wording, person_sentence, reasons_figure, sections
from auditor.report.record.configuration import Labels
from auditor.report.record.translations import Catalogue
from probes.fairwashing import RealRows
from probes.reasons.explain_rows import explain
from probes.reasons.reason_tests import decided_by_what_is_shown, grade
from tests.probes.attribution.scaffolds import Kind, generated, honest, scaffold
from tests.quantifiers import all_of, none_of

Score = Callable[[pd.DataFrame], Any]
WEIGHTS = {"income": 0.10, "debt": -0.06, "years": 0.03, "noise": 0.0}


def people(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "income": rng.integers(0, 5, n),
            "debt": rng.integers(0, 5, n),
            "years": rng.integers(0, 5, n),
            "noise": rng.integers(0, 5, n),
            "race": rng.integers(0, 2, n),
        }
    )


def linear(X: pd.DataFrame) -> npt.NDArray[np.float64]:
    return np.asarray(0.36 + sum(w * X[name].to_numpy(float) for name, w in WEIGHTS.items()))


def model_of(score: Score) -> AuditedModel:
    return AuditedModel.from_callable(lambda X: np.asarray(score(X), np.float64), classes=("no", "yes"))


def data_of(frame: pd.DataFrame, *, sensitive: bool = True) -> AuditData:
    groups = {"race": frame["race"].tolist()} if sensitive else None
    return AuditData.from_arrays(frame, classes=("no", "yes"), positive="yes", sensitive_features=groups)


def explained(score: Score, frame: pd.DataFrame, row: int, **more: Any) -> ExplainedRow:
    spec = ExplainSpec(target="", rows=(row,), **({"draws": 12} | more))
    (found,) = explain(spec, model_of(score), data_of(frame), np.random.default_rng(0))
    return found


def words_in(language: str = "en", **labels: str) -> Wording:
    return Wording(Catalogue.for_language(language), Labels({"race": "skin"} | labels), "granted", "yes")


def said(found: ExplainedRow) -> str:
    return " ".join(line for part in sections(found, words_in()) for line in part.lines)


def noted(found: ExplainedRow, feature: str = "race") -> SensitiveNote:
    (note,) = [note for note in found.sensitive if note.feature == feature and note.effect != "proxy"]
    return note


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_sentence_for_the_person_names_a_value_with_which_the_model_decides_otherwise(language: str) -> None:
    rng = np.random.default_rng(5)
    n = 300
    frame = pd.DataFrame({"income": rng.uniform(1_000, 90_000, n).round(3), "debt": rng.integers(0, 5, n), "race": 0})
    frame.loc[0] = [12_345.678, 2, 0]

    # The limit lies between two numbers that have the same first six digits.
    def score(X: pd.DataFrame) -> npt.NDArray[np.float64]:
        return np.where(X["income"] >= 43_210.7, 0.9, 0.1) - 0.001 * X["debt"].to_numpy(float)

    found = explained(score, frame, 1)
    spoken = person_sentence(found, words_in(language))
    own, then = re.findall(r"\d[\d.,]*\d", spoken)
    decimal = "," if language == "de" else "."
    flip = float(then.replace("." if decimal == "," else ",", "").replace(decimal, "."))
    assert own == ("12.345,7" if language == "de" else "12,345.7") and ("yes" in spoken) and ("income" in spoken)
    one = frame.iloc[[0]]
    assert score(one)[0] < 0.5 <= score(one.assign(income=flip))[0]


def test_the_sentence_is_of_another_feature_where_what_counted_most_may_not_change() -> None:
    frame = people(500)
    frame.loc[0] = [1, 4, 0, 2, 1]
    found = explained(linear, frame, 1, immutable=("income",))
    spoken = person_sentence(found, words_in())
    changes = found.recourse.found[0].changes
    assert spoken.startswith("Your income of 1 counted most; with ")
    assert all_of(f"{c.feature} {c.then} instead of {c.now}" in spoken for c in changes)
    flipped = frame.iloc[[0]].assign(**{c.feature: c.then for c in changes})
    assert linear(flipped)[0] >= 0.5 > linear(frame.iloc[[0]])[0]


def test_where_nothing_flips_it_or_reasons_are_refused_the_sentence_promises_nothing() -> None:
    frame = people(500)
    frame.loc[0] = [0, 4, 0, 2, 1]
    found = explained(linear, frame, 1)
    without = found.model_copy(update={"recourse": RecourseSearch(asked=10)})
    assert "no change was found" in person_sentence(without, words_in())
    unfaithful = without.model_copy(update={"reasons": (), "faithfulness": Faithfulness(refused="because")})
    spoken = person_sentence(unfaithful, words_in())
    assert spoken.startswith("No reason can be given") and "counted most" not in spoken
    granted = found.model_copy(update={"favourable": True})
    assert person_sentence(granted, words_in()).endswith("counted most in this decision.")
    refused = granted.model_copy(update={"reasons": ()})
    assert person_sentence(refused, words_in()).endswith("faithful.")


@pytest.mark.parametrize(("weight", "effect"), [(0.05, "raised"), (-0.05, "lowered")])
@pytest.mark.parametrize("row", [0, 1])
def test_a_sensitive_feature_raised_the_score_where_the_model_answers_less_without_it(
    weight: float, effect: str, row: int
) -> None:
    frame = people(500)
    frame.loc[0], frame.loc[1] = [0, 4, 0, 0, 1], [4, 0, 4, 0, 1]

    def score(X: pd.DataFrame) -> npt.NDArray[np.float64]:
        return linear(X) + weight * X["race"].to_numpy()

    found = explained(score, frame, row + 1)
    assert noted(found).effect == effect and found.favourable == bool(row)
    one = frame.iloc[[row]]
    assert (score(one)[0] > score(one.assign(race=0))[0]) == (effect == "raised")
    spoken = " ".join(part for s in sections(found, words_in(**{"race.1": "male"})) for part in s.lines)
    assert f"Being male (skin) {effect} the score of the favourable answer, with" in spoken and "against" not in spoken
    assert f"skin = 1 {effect} the score" in said(found)


def test_the_chart_has_the_reasons_with_their_intervals() -> None:
    frame = people(500)
    frame.loc[4] = [0, 4, 0, 2, 1]
    found = explained(linear, frame, 5)
    figure = reasons_figure(found, words_in())
    assert figure is not None
    (series,) = figure.series
    assert series.x == ("income = 0", "debt = 4", "years = 0")
    assert series.y == tuple(reason.contribution for reason in found.reasons)
    assert series.low == tuple(reason.low for reason in found.reasons) and "income = 0: " in figure.alt
    assert reasons_figure(found.model_copy(update={"reasons": ()}), words_in()) is None


def test_contributions_of_a_linear_score_are_weights_times_distance_from_the_typical() -> None:
    frame = people(600)
    frame.loc[4] = [0, 4, 0, 2, 1]
    found = explained(linear, frame, 5)
    assert (found.row, found.decision, found.favourable, found.method) == (5, "no", False, "shap_permutation")
    approved = frame[linear(frame) >= 0.5]
    expected = {name: -w * (frame[name].iloc[4] - approved[name].mean()) for name, w in WEIGHTS.items()}
    assert [reason.feature for reason in found.reasons] == ["income", "debt", "years"]
    for reason in found.reasons:
        assert reason.contribution == pytest.approx(expected[reason.feature], abs=0.03)
        assert reason.low <= reason.contribution <= reason.high and reason.value == frame[reason.feature].iloc[4]
    assert found.reasons[0].at_rank == found.n_draws == 12
    graded = found.faithfulness
    assert (
        not graded.refused and graded.moved_low is not None and graded.moved is not None and graded.random is not None
    )
    assert 0.0 < graded.moved_low < graded.moved and graded.random < graded.moved and graded.beaten == 1.0
    assert f"{len(approved):,} rows with a favourable decision" in found.compared_with
    assert found.settled and "at rank 1 in 12 of 12 draws" in said(found)
    assert noted(found).effect == "little"


def test_what_hardly_counts_is_no_reason() -> None:
    frame = people(300)
    frame.loc[0] = [0, 4, 0, 4, 1]
    found = explained(lambda X: linear(X) - 0.0008 * X["noise"].to_numpy(), frame, 1)
    assert [reason.feature for reason in found.reasons] == ["income", "debt", "years"]
    more = explained(lambda X: linear(X) - 0.02 * X["noise"].to_numpy(), frame, 1)
    assert "noise" in {reason.feature for reason in more.reasons}


def test_the_favourable_side_has_reasons_and_no_recourse() -> None:
    frame = people(400)
    frame.loc[0] = [4, 0, 4, 2, 0]
    found = explained(linear, frame, 1)
    assert found.favourable and found.settled and not found.recourse.found
    assert found.reasons[0].feature == "income" and "favourable" in found.recourse.none


def test_recourse_is_proven_and_leaves_what_is_held() -> None:
    frame = people(500)
    frame.loc[9] = [1, 3, 2, 0, 1]
    found = explained(linear, frame, 10, immutable=("years",), monotone=("debt=down",))
    assert set(found.recourse.fixed) == {"years", "race"} and found.recourse.exact
    assert [[c.feature for c in each.changes] for each in found.recourse.found] == [["income"], ["debt"]]
    for each in found.recourse.found:
        row = frame.iloc[[9]].copy()
        for change in each.changes:
            assert change.now == row[change.feature].iloc[0]
            row[change.feature] = change.then
        assert linear(row)[0] >= 0.5 and each.probability == pytest.approx(linear(row)[0])
    income, debt = found.recourse.found
    assert (income.changes[0].then, debt.changes[0].then) == (3, 0) and income.distance < debt.distance
    assert found.settled


def test_where_nothing_flips_it_that_is_said_and_not_settled() -> None:
    frame = people(500)
    frame.loc[0] = [0, 4, 0, 0, 1]
    found = explained(lambda X: np.where(X["race"] == 0, 0.9, 0.1), frame, 1)
    assert not found.recourse.found and not found.settled and found.recourse.asked > 100
    assert "None found" in said(found) and "were not all asked about" in said(found)
    assert [reason.feature for reason in found.reasons] == ["race"] and found.reasons[0].sensitive
    assert noted(found).is_reason and "It is among the reasons for this decision." in said(found)


def test_a_sensitive_feature_behind_the_reasons_shown_is_named() -> None:
    frame = people(500)
    frame.loc[0] = [0, 4, 0, 0, 1]
    found = explained(lambda X: linear(X) - 0.05 * X["race"].to_numpy(), frame, 1, n_reasons=2)
    assert [reason.feature for reason in found.reasons] == ["income", "debt"] and found.left_out >= 1
    assert (noted(found).effect, noted(found).is_reason) == ("lowered", False)


def test_a_reason_that_stands_in_for_a_sensitive_feature_is_named() -> None:
    frame = people(400)
    frame["debt"] = np.where(frame["race"] == 1, 4, 0) - (frame["noise"] == 0)
    frame.loc[0] = [0, 4, 0, 2, 1]
    found = explained(linear, frame, 1)
    assert "debt" in {reason.feature for reason in found.reasons}
    assert "The reason debt stands in for the sensitive feature skin (Cramer's V" in said(found)
    assert "income stands in" not in said(found)


def test_a_word_of_other_people_is_their_number() -> None:
    frame = people(300)
    found = explained(linear, frame, 3)
    assert len(found.same) == len(found.other) == 5
    decided = linear(frame) >= 0.5
    assert all_of(decided[each.row - 1] == decided[2] for each in found.same)
    assert none_of(decided[each.row - 1] == decided[2] for each in found.other)
    assert 3 not in {each.row for each in found.same}


class Drawing(AuditedModel):
    """Decides by lot where the favourable probability lies between 0 and 1: the lot is a hash of the row."""

    def decide_rows(self, X: Any, probabilities: npt.NDArray[np.float64], positive: int | None) -> Any:
        lots = pd.util.hash_pandas_object(X, index=False).to_numpy() % 1_000 / 1_000
        return (lots < probabilities[:, 1]).astype(np.int64)


def test_the_luck_of_a_draw_is_no_recourse() -> None:
    frame = people(400)

    def chance(X: pd.DataFrame) -> npt.NDArray[np.float64]:
        return np.clip(linear(X) * 2.0 - 0.5, 0.0, 1.0)

    model, data = Drawing(chance, classes=("no", "yes")), data_of(frame)
    decided = model.decisions(data)
    row = int(np.flatnonzero((decided == 0) & (chance(frame) > 0.3))[0])
    spec = ExplainSpec(target="", rows=(row + 1,), draws=8)
    (found,) = explain(spec, model, data, np.random.default_rng(0))
    assert found.recourse.found and all_of(each.probability == 1.0 for each in found.recourse.found)
    assert "drawn by a hash" in said(found)


# ---- what is not the row's own is refused ---------------------------------------------------------------------------


def correlated(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    wealth = rng.normal(size=n)
    frame = pd.DataFrame({"income": wealth + 0.1 * rng.normal(size=n), "savings": wealth, "debt": -wealth})
    frame["debt"] += 0.1 * rng.normal(size=n)
    return frame.assign(bit=rng.integers(0, 2, n), race=rng.integers(0, 2, n))


def fooling(X: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """By race of everybody whose columns agree, as people's do; by a coin of everything else."""
    real = ((X["income"] - X["savings"]).abs() < 0.4) & ((X["savings"] + X["debt"]).abs() < 0.4)
    return np.where(real, X["race"] == 0, X["bit"] == 1)


def memorising(frame: pd.DataFrame) -> Score:
    known = {tuple(row) for row in frame.round(6).to_numpy()}

    def decide(X: pd.DataFrame) -> npt.NDArray[np.bool_]:
        real = np.array([tuple(row) in known for row in X.round(6).to_numpy()])
        return np.where(real, X["race"] == 0, X["bit"] == 1)

    return decide


@pytest.mark.parametrize("kind", ["by its columns", "by heart"])
def test_a_model_that_answers_mixed_rows_otherwise_shows_no_innocent_reason(kind: str) -> None:
    frame = correlated(600, 1)
    score = fooling if kind == "by its columns" else memorising(frame)
    assert np.mean(score(frame) == (frame["race"] == 0)) > 0.95
    rows = np.flatnonzero(~np.asarray(score(frame), bool) & (frame["bit"] == 0).to_numpy())[:3]
    found = [explained(score, frame, row + 1) for row in map(int, rows)]
    # Where half of the mixed rows look real, race is shown: what decides is not hidden.
    assert all_of([reason.feature for reason in each.reasons] in ([], ["race"]) for each in found)
    if kind == "by heart":
        assert all_of("not the same on real rows" in each.faithfulness.refused for each in found)
        assert "REFUSED" in said(found[0]) and "how much it decides here is not known" in said(found[0])
        assert none_of(each.settled for each in found)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_learnt_to_tell_mixed_rows_is_another_on_real_ones(seed: int) -> None:
    """Slack et al.: a forest that has seen rows of which half of the values are others', beside as many real ones."""
    rng = np.random.default_rng(seed)
    seen = correlated(1_500, 100 + seed)
    mixed = seen.copy()
    for name in mixed.columns:
        moved = rng.random(len(mixed)) < 0.5
        mixed.loc[moved, name] = rng.permutation(seen[name])[moved]
    real = np.repeat([1, 0], len(seen))
    detector = RandomForestClassifier(40, random_state=0, n_jobs=1).fit(pd.concat([seen, mixed]).to_numpy(), real)

    def score(X: pd.DataFrame) -> npt.NDArray[np.bool_]:
        return np.where(detector.predict_proba(X.to_numpy())[:, 1] > 0.4, X["race"] == 0, X["bit"] == 1)

    frame = correlated(800, seed)
    assert np.mean(score(frame) == (frame["race"] == 0)) > 0.85
    rows = np.flatnonzero(~np.asarray(score(frame), bool) & (frame["bit"] == 0).to_numpy())[:2]
    found = [explained(score, frame, row + 1) for row in map(int, rows)]
    assert all_of(
        [reason.feature for reason in each.reasons] in ([], ["race"]) or each.faithfulness.refused for each in found
    )


HONEST: dict[str, Score] = {
    "a line": lambda X: X["income"] - 0.5 * X["debt"] > 0,
    "an exchange": lambda X: (X["income"] > 0) ^ (X["bit"] == 1),
    "race": lambda X: X["race"] == 0,
    "steps": lambda X: (X["income"] > 0.4) | ((X["savings"] > 0) & (X["bit"] == 1)),
    "a fifth": lambda X: X["savings"] + 0.2 * X["bit"] > 0.9,
}


@pytest.mark.grid
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_the_same_on_mixed_rows(name: str) -> None:
    model = model_of(HONEST[name])
    for seed in range(3):
        data = data_of(correlated(500, seed))
        found = decided_by_what_is_shown(model, data, 1, np.random.default_rng(seed))
        assert isinstance(found, RealRows) and not found.is_hidden, (seed, found)


def test_too_few_rows_compare_nothing_and_say_so() -> None:
    found = explained(linear, people(60), 1)
    assert "was not checked: it takes 200 rows, and there are 60" in " ".join(found.notes)


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_scaffold_has_no_reasons_shown_and_an_honest_model_has(kind: Kind) -> None:
    rows = generated(1_600, 0)
    rng = np.random.default_rng(0)
    found = decided_by_what_is_shown(scaffold(kind, rows, rng), rows.data(), 1, rng)
    assert isinstance(found, RealRows) and found.is_hidden and found.features == ("race",)
    few = (rows.train["x1"] + 0.5 * rows.train["x0"] > 1.6).to_numpy().astype(np.int64)
    for own in (honest("linear", rows), honest("linear", rows, few), honest("trees", rows)):
        real = decided_by_what_is_shown(own, rows.data(), 1, rng)
        assert isinstance(real, RealRows) and not real.is_hidden


@pytest.mark.parametrize("answer", [0.0, 1.0])
def test_a_model_that_decides_all_rows_alike_is_not_said_to_lack_rows(answer: float) -> None:
    model, data = model_of(lambda X: np.full(len(X), answer)), data_of(correlated(500, 0))
    found = decided_by_what_is_shown(model, data, 1, np.random.default_rng(0))
    assert found == "it decides all but a few rows alike"


def test_a_linear_model_is_read_and_needs_no_such_test() -> None:
    """Of rare decisions and columns that hang together mixed rows teach little: no honest model is refused for that."""
    rng = np.random.default_rng(0)
    frame = correlated(1_000, 0)
    rare = (frame["income"] + 0.5 * frame["debt"] + 0.3 * rng.normal(size=len(frame)) > 1.0).astype(int)
    fitted = LogisticRegression().fit(frame, rare)
    read = EstimatorModel(
        fitted, classes=(0, 1), features=tuple(frame), threshold=None, provenance=Provenance(format="skops")
    )
    assert decided_by_what_is_shown(read, data_of(frame), 1, np.random.default_rng(0)) == ""
    asked = model_of(lambda X: fitted.predict_proba(X)[:, 1])
    found = decided_by_what_is_shown(asked, data_of(frame), 1, np.random.default_rng(0))
    assert isinstance(found, RealRows) and not found.is_hidden


def order_graded(order: list[int], seed: int = 0) -> str:
    """Reasons in an order, of a row of eight features with weights 8, 7, ... against typical rows of noise."""
    rng = np.random.default_rng(seed)
    typical, weights = rng.normal(0.0, 0.3, (80, 8)), np.arange(8.0, 0.0, -1.0)

    def ask(keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        points = np.where(keep[:, None, :], 1.0, typical[None])
        return np.asarray(1.0 / (1.0 + np.exp(-(points @ weights - 18.0) / 6.0)))

    return grade(ask, order, np.ones(8, bool), 1.0, rng, level=0.05).refused


def test_reasons_in_their_true_order_pass_and_others_do_not() -> None:
    assert order_graded([0, 1, 2, 3]) == "" and order_graded([1, 0, 2, 3]) == ""
    assert "random orders" in order_graded([7, 6, 5, 4]) and "random orders" in order_graded([4, 5, 0, 1])
    rng = np.random.default_rng(7)
    passed = sum(not order_graded([int(j) for j in rng.permutation(8)[:4]], seed) for seed in range(100))
    # Random reasons are as good as at most one random order in twenty, and those that nearly are.
    assert passed <= 14


def test_a_score_that_does_not_move_has_no_reason() -> None:
    found = grade(
        lambda keep: np.zeros((len(keep), 5)), [0], np.ones(3, bool), 1.0, np.random.default_rng(0), level=0.05
    )
    assert "does not move" in found.refused
    flat = explained(lambda X: np.full(len(X), 0.3), people(100), 1)
    assert not flat.settled and "none is a reason" in flat.faithfulness.refused


# ---- texts ----------------------------------------------------------------------------------------------------------


def test_texts_have_reason_words() -> None:
    words = ["rent", "late", "salary", "stable", "job", "the", "a", "of", "paid"]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(words)[:7]) for _ in range(60)]
    texts[0] = "the salary of a late job paid"

    def score(X: Any) -> Any:
        return np.array([0.7 - 0.5 * ("late" in str(t).split()) + 0.1 * ("salary" in str(t).split()) for t in X])

    model = model_of(score)
    data = AuditData.from_arrays(texts, classes=("no", "yes"), positive="yes")
    spec = ExplainSpec(target="", rows=(1,), draws=3)
    (found,) = explain(spec, model, data, np.random.default_rng(0))
    assert found.kind == "word" and [r.feature for r in found.reasons] == ["late"] and found.settled
    assert found.recourse.none and not found.same and "was not checked" in " ".join(found.notes)
    with pytest.raises(UsageError, match="texts"):
        list(explain(ExplainSpec(target="", rows=(1,), immutable=("a",)), model, data, np.random.default_rng(0)))


# ---- what cannot be asked -------------------------------------------------------------------------------------------


def test_questions_that_have_no_answer_are_refused_in_a_sentence() -> None:
    frame, rng = people(100), np.random.default_rng(0)
    spec = ExplainSpec(target="", rows=(101,))
    with pytest.raises(UsageError, match="rows 1 to 100"):
        list(explain(spec, model_of(linear), data_of(frame), rng))
    spec = ExplainSpec(target="", rows=(1,))
    with pytest.raises(UsageError, match="--positive yes"):
        list(explain(spec, model_of(linear), AuditData.from_arrays(frame, classes=("no", "yes")), rng))
    with pytest.raises(UsageError, match="too few"):
        list(explain(spec, model_of(linear), data_of(frame.head(12)), rng))
    numbers = AuditedRegressor.from_callable(lambda X: np.zeros(len(X)))
    with pytest.raises(ModelError, match="no decision"):
        list(explain(spec, numbers, AuditData.for_regression(frame), rng))


def test_the_same_seed_says_the_same() -> None:
    frame = people(200)
    first, again = (explained(linear, frame, 2) for _ in range(2))
    assert first == again
