"""Laws that every kind of estimate keeps: a new kind without an example fails here by its name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from auditor.statistics.estimate import Estimate, Side, minimum_detectable_effect, n_required
from tests.quantifiers import all_of
from tests.statistics.estimate_examples import ANY, EVERY, EXAMPLES, KINDS

ALPHAS = (0.5, 0.3, 0.1, 0.05, 0.0125, 1e-3, 1e-6, 1e-12)
SIDES: tuple[Side, ...] = ("greater", "at_least", "less", "at_most")
LEVEL = 0.0125

every = pytest.mark.parametrize("estimate", EVERY.values(), ids=EVERY.keys())
usual = pytest.mark.parametrize("kind", EXAMPLES)
sampled = pytest.mark.parametrize("kind", [k for k, e in EXAMPLES.items() if not e.exact and k != "undefined"])
planned = pytest.mark.parametrize("kind", [k for k, e in EXAMPLES.items() if e.plans])


def kind_of(estimate: Estimate) -> str:
    return estimate.kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_example_and_a_small_one(kind: str) -> None:
    examples = EXAMPLES[kind]
    assert isinstance(examples.usual, KINDS[kind])
    assert len(examples.small) >= 1
    for estimate in examples.small:
        assert isinstance(estimate, KINDS[kind])
    if examples.plans:
        assert examples.at is not None, "what is planned is held to its plan"


def test_there_are_no_examples_of_what_is_no_kind() -> None:
    assert set(EXAMPLES) == set(KINDS)
    assert len(KINDS) >= 42


# ---- the record ----------------------------------------------------------------------------------------------------


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@pytest.mark.grid(by=kind_of)
@every
def test_an_estimate_is_the_same_after_a_round_trip(estimate: Estimate) -> None:
    again = ANY.validate_json(ANY.dump_json(estimate))
    assert type(again) is type(estimate) and again == estimate
    assert same(again.value, estimate.value)
    assert again.limits == estimate.limits
    for alpha in ALPHAS:
        assert again.bounds(alpha) == estimate.bounds(alpha)


@pytest.mark.grid(by=kind_of)
@every
def test_the_same_question_has_the_same_answer(estimate: Estimate) -> None:
    found = estimate.bounds(LEVEL)
    assert estimate.bounds(LEVEL) == found
    assert estimate.interval(1.0 - 2.0 * LEVEL) == pytest.approx(found, rel=1e-9, abs=1e-12)
    many = estimate.many_bounds(np.asarray(ALPHAS))
    assert many.shape == (len(ALPHAS), 2)
    for (low, high), alpha in zip(many.tolist(), ALPHAS, strict=True):
        one = estimate.bounds(alpha)
        assert (estimate.lower(alpha), estimate.upper(alpha)) == one
        assert (low, high) == pytest.approx(one, rel=1e-12, abs=1e-12)


# ---- bounds --------------------------------------------------------------------------------------------------------

# The value of differential fairness is smoothed and its bounds are not.
LOOSE = 1e-9


@pytest.mark.grid(by=kind_of)
@every
def test_bounds_are_nested_and_hold_the_value(estimate: Estimate) -> None:
    found = [estimate.bounds(alpha) for alpha in ALPHAS]
    for (low, high), (wider_low, wider_high) in zip(found, found[1:], strict=False):
        assert not math.isnan(low) and not math.isnan(high)
        assert wider_low <= low + LOOSE and high <= wider_high + LOOSE
    for low, high in found:
        assert low <= high + LOOSE
        if not math.isnan(estimate.value):
            assert low <= estimate.value + LOOSE and estimate.value <= high + LOOSE


@pytest.mark.grid(by=kind_of)
@every
def test_bounds_and_value_stay_within_what_the_number_can_be(estimate: Estimate) -> None:
    floor, ceiling = estimate.limits
    assert floor <= ceiling
    if not math.isnan(estimate.value):
        assert floor - LOOSE <= estimate.value <= ceiling + LOOSE
    for alpha in ALPHAS:
        low, high = estimate.bounds(alpha)
        assert low <= ceiling + LOOSE and high >= floor - LOOSE


@sampled
def test_what_is_sampled_is_not_certain(kind: str) -> None:
    for estimate in (EXAMPLES[kind].usual, *EXAMPLES[kind].small):
        floor, ceiling = estimate.limits
        if getattr(estimate, "exhausted", False):
            continue
        for alpha in (0.25, 0.05, 1e-3):
            low, high = estimate.bounds(alpha)
            if floor != ceiling:
                assert low < high


@sampled
def test_a_stricter_level_is_a_wider_interval(kind: str) -> None:
    estimate = EXAMPLES[kind].usual
    (low, high), (wider_low, wider_high) = estimate.bounds(0.1), estimate.bounds(1e-3)
    floor, ceiling = estimate.limits
    if low != floor:
        assert wider_low < low
    if high < ceiling and math.isfinite(high):
        assert high < wider_high


def test_what_is_declared_exact_is_so_at_every_level() -> None:
    exact = [examples for examples in EXAMPLES.values() if examples.exact]
    assert len(exact) > 0
    for examples in exact:
        for estimate in (examples.usual, *examples.small):
            assert len({estimate.bounds(alpha) for alpha in ALPHAS}) == 1
            assert estimate.value in estimate.bounds(0.05)


@pytest.mark.grid(by=kind_of)
@every
def test_p_values_invert_the_bounds(estimate: Estimate) -> None:
    found = {alpha: estimate.bounds(alpha) for alpha in (0.3, 0.01, 1e-5)}
    ends = [end for end in found[0.01] if math.isfinite(end)]
    for bound in {*ends, *(end + shift for end in ends for shift in (-0.02, 0.02)), 0.3}:
        for side in SIDES:
            p = estimate.p_value(bound, side)
            assert 1e-16 <= p <= 1.0
            for alpha, (low, high) in found.items():
                shown = {"greater": low > bound, "at_least": low >= bound, "less": high < bound}.get(
                    side, high <= bound
                )
                if p != pytest.approx(alpha, rel=1e-5):
                    assert shown == (p <= alpha)


# ---- more rows -----------------------------------------------------------------------------------------------------

COUNTS = {
    "n", "successes", "failures", "before", "gained", "lost", "below", "equal", "above", "n_positive", "n_negative",
    "n_first", "n_second", "alarms", "misses", "at_least_as_likely", "members_above", "proved", "possible",
    "found", "positives", "spared", "negatives", "candidates",
}  # fmt: skip
ROWS = {"values", "members_above"}


def scaled(estimate: Any, times: float) -> Any:
    """What ``times`` as many rows of the same shares, means and spreads would come to."""

    def grown(x: Any) -> Any:
        if x is None:
            return None
        return [grown(y) for y in x] if isinstance(x, list) else round(x * times)

    def stretched(x: list[Any]) -> list[Any]:
        return [x[min(int(j / times), len(x) - 1)] for j in range(round(len(x) * times))]

    def walk(data: Any) -> Any:
        if isinstance(data, list):
            return [walk(x) for x in data]
        if not isinstance(data, dict):
            return data
        found = {}
        for key, x in data.items():
            if key in COUNTS and not isinstance(x, dict):
                x = grown(x)
            if key in ROWS:
                x = stretched(x)
            if key in ("standard_error", "chance"):
                x = x / math.sqrt(times)
            if key == "degrees_of_freedom":
                x = x * times
            if key == "third_cumulant":
                x = x / times**2
            # Of shares, and not of values: the sum of their cubes.
            if key == "third_moment" and data.get("kind") == "clustered_mean":
                x = x / times**2
            if key == "largest_share":
                x = x / times
            if key == "effective":
                x = x * times
            found[key] = walk(x)
        # Successes and losses are rounded up to no more than there are.
        if isinstance(found.get("n"), int) and "successes" in found:
            found["successes"] = min(found["successes"], found["n"])
        if "above" in found and isinstance(found["above"], dict) and "centre" in found["above"]:
            found["above"]["centre"] = found["below"]["centre"] + (
                found["above"]["centre"] - found["below"]["centre"]
            ) / math.sqrt(times)
        return found

    return ANY.validate_python(walk(ANY.dump_python(estimate, mode="json")))


def reach_of_bracket(estimate: Any) -> tuple[float, float]:
    low, high = estimate.bounds(LEVEL)
    return estimate.proved / estimate.n - low, high - estimate.possible / estimate.n


def reach_of_brackets(estimate: Any) -> tuple[float, float]:
    (low, high), n = estimate.bounds(LEVEL), np.asarray(estimate.proved.n)
    worse, better = np.asarray(estimate.proved.successes) / n, np.asarray(estimate.possible.successes) / n
    return max(*(worse - better[::-1]), 0.0) - low, max(better - worse[::-1]) - high


# Kinds whose interval does not shrink to a point.
OPEN: dict[str, Callable[[Any], tuple[float, ...]]] = {
    "at_most": lambda estimate: (estimate.bounds(LEVEL)[1] - estimate.value,),
    "at_least": lambda estimate: (estimate.value - estimate.bounds(LEVEL)[0],),
    "bracket": reach_of_bracket,
    "ratio_between": lambda estimate: (
        estimate.below.value - estimate.bounds(LEVEL)[0],
        estimate.bounds(LEVEL)[1] - estimate.above.value,
    ),
    "worst_bracket_difference": lambda estimate: tuple(-x for x in reach_of_brackets(estimate)[1:]),
}


@sampled
def test_more_rows_of_the_same_make_a_narrower_interval(kind: str) -> None:
    estimate = EXAMPLES[kind].usual
    if kind == "confirmed_count":  # p-values have no rows
        return
    low, high = estimate.bounds(LEVEL)
    more_low, more_high = scaled(estimate, 4).bounds(LEVEL)
    assert low <= more_low and more_high <= high
    if kind in OPEN:
        # What rows narrow is the reach from the value to the end that is not open, or from each count to its own.
        ends = OPEN[kind](estimate)
        assert all_of(0.0 < more < 0.8 * few for few, more in zip(ends, OPEN[kind](scaled(estimate, 4)), strict=True))
        return
    assert more_high - more_low < 0.8 * (high - low)
    many_low, many_high = scaled(estimate, 100).bounds(LEVEL)
    assert many_high - many_low < 0.25 * (high - low)
    assert many_low - 1e-9 <= scaled(estimate, 100).value <= many_high + 1e-9


# ---- symmetries ----------------------------------------------------------------------------------------------------

IN_ORDER = {"parts", "attacks", "gaps", "pairs", "p_values", "distances", "tables", "rates"}
# A count's own order is a matter of sides, of time or of rank, or there is one sample alone.
ONE_SAMPLE = {
    "undefined", "exact", "upper_bound", "proportion", "student_t", "area_under_curve", "quantile",
    "true_positive_rate_at", "equal_error_rate", "average_precision", "area_difference", "excess_share", "difference",
    "odds", "benefit_inequality", "bracketed_mean", "standardized_difference", "rate_change", "bounded_mean",
    "exposure", "clustered_mean", "clustered_value", "ratio_of_totals", "ratio_between", "idealized_association",
    "at_most", "at_least",    "bracket", "corrected_proportion",
}  # fmt: skip


def of_negated_ratio(x: Any) -> Any:
    """What a ratio of totals is made of, where every cluster is of the other sign."""
    return (
        x
        | {"first": [-x["first"][0], x["first"][1]], "second": [x["second"][0], -x["second"][1], x["second"][2]]}
        | {"third": [sign * m for sign, m in zip((-1, 1, -1, 1), x["third"], strict=True)]}
    )


def turned(estimate: Any) -> Any:
    """The same groups in the opposite order."""

    def groups(columns: dict[str, Any]) -> dict[str, Any]:
        return {key: x[::-1] if isinstance(x, list) else x for key, x in columns.items()}

    data = ANY.dump_python(estimate, mode="json")
    found = groups({k: v for k, v in data.items() if k != "table"})
    for key in ("table", "proved", "possible"):
        if isinstance(data.get(key), dict):
            found[key] = groups(data[key])
    for key in ("tables", "rates"):
        if key in data:
            found[key] = [groups(x) for x in found[key]]
    if "gaps" in data:
        found["gaps"] = [groups(x) for x in found["gaps"]]
    if "index" in data:
        found["index"] = len(data["table"]["n"]) - 1 - data["index"]
    return ANY.validate_python(found)


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if kind not in ONE_SAMPLE])
def test_the_order_of_groups_does_not_matter(kind: str) -> None:
    for estimate in (EXAMPLES[kind].usual, *EXAMPLES[kind].small):
        other = turned(estimate)
        assert other.value == pytest.approx(estimate.value, rel=1e-12, abs=1e-12, nan_ok=True)
        for alpha in (0.2, LEVEL, 1e-6):
            assert other.bounds(alpha) == pytest.approx(estimate.bounds(alpha), rel=1e-9, abs=1e-9)


def negated(bounds: tuple[float, float]) -> tuple[float, float]:
    return -bounds[1], -bounds[0]


def complement(bounds: tuple[float, float]) -> tuple[float, float]:
    return 1.0 - bounds[1], 1.0 - bounds[0]


def unchanged(bounds: tuple[float, float]) -> tuple[float, float]:
    return bounds


def failures_of(table: dict[str, Any]) -> dict[str, Any]:
    return table | {"successes": [n - k for k, n in zip(table["successes"], table["n"], strict=True)]}


def after_of(x: dict[str, Any]) -> dict[str, Any]:
    """Time turned round."""
    before, gained, lost = (np.asarray(x[key]) for key in ("before", "gained", "lost"))
    return x | {"before": (before + gained - lost).tolist(), "gained": lost.tolist(), "lost": gained.tolist()}


def thirds(part: dict[str, Any], **more: Any) -> dict[str, Any]:
    return part | {"third_moment": -part["third_moment"]} | more


def opposite(part: dict[str, Any]) -> dict[str, Any]:
    """A part whose number is mirrored, about the middle of its range."""
    if part["kind"] == "bounded_mean":
        return thirds(part, centre=part["low"] + part["high"] - part["centre"])
    if part["kind"] == "clustered_mean":
        return thirds(part, centre=1.0 - part["centre"])
    return part | {"centre": 1.0 - part["centre"]}


def mirrored_t(x: dict[str, Any]) -> dict[str, Any]:
    assert x["scale"] == "logit"
    return x | {"centre": 1.0 - x["centre"]}


Bounds = Callable[[tuple[float, float]], tuple[float, float]]
# What an estimate is turned into, and what its bounds then are.
MIRRORS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], Bounds]] = {
    "proportion": (lambda x: x | {"successes": x["n"] - x["successes"]}, complement),
    "excess_share": (
        lambda x: x | {"successes": x["n"] - x["successes"], "promised": 1.0 - x["promised"]},
        negated,
    ),
    "at_most": (lambda x: x | {"kind": "at_least", "successes": x["n"] - x["successes"]}, complement),
    "at_least": (lambda x: x | {"kind": "at_most", "successes": x["n"] - x["successes"]}, complement),
    "bracket": (
        lambda x: x | {"proved": x["n"] - x["possible"], "possible": x["n"] - x["proved"]},
        complement,
    ),
    "worst_bracket_difference": (
        lambda x: x | {"proved": failures_of(x["possible"]), "possible": failures_of(x["proved"])},
        unchanged,
    ),
    "difference": (lambda x: x | {"successes": x["successes"][::-1], "n": x["n"][::-1]}, negated),
    "rate_change": (after_of, negated),
    "gap_change": (lambda x: x | {"rates": [after_of(rate) for rate in x["rates"]]}, negated),
    "student_t": (mirrored_t, complement),
    "area_under_curve": (
        lambda x: (
            x
            | {"centre": 1.0 - x["centre"], "n_positive": x["n_negative"], "n_negative": x["n_positive"]}
            | {"third_cumulant": -x.get("third_cumulant", 0.0)}
        ),
        complement,
    ),
    "quantile": (lambda x: x | {"values": [-v for v in x["values"][::-1]], "level": 1.0 - x["level"]}, negated),
    "equal_error_rate": (
        lambda x: (
            x
            | {"alarms": x["misses"][::-1], "misses": x["alarms"][::-1]}
            | {"n_positive": x["n_negative"], "n_negative": x["n_positive"]}
        ),
        unchanged,
    ),
    "average_precision": (
        lambda x: (
            x | {"centre": 1.0 - x["centre"], "positives": thirds(x["negatives"]), "negatives": thirds(x["positives"])}
        ),
        complement,
    ),
    "area_difference": (
        lambda x: (
            x
            | {"first": x["second"], "second": x["first"]}
            | {key: thirds(x[key]) for key in ("positives", "negatives")}
        ),
        negated,
    ),
    "smallest_rate": (lambda x: x | {"kind": "largest_rate", "table": failures_of(x["table"])}, complement),
    "largest_rate": (lambda x: x | {"kind": "smallest_rate", "table": failures_of(x["table"])}, complement),
    "odds": (
        lambda x: x | {"successes": x["failures"], "failures": x["successes"]},
        lambda bounds: (1.0 / bounds[1], 1.0 / bounds[0]),
    ),
    "worst_difference": (lambda x: x | {"tables": [failures_of(t) for t in x["tables"]]}, unchanged),
    "worst_mean_difference": (lambda x: x | {"tables": [failures_of(t) for t in x["tables"]]}, unchanged),
    "worst_odds_ratio": (lambda x: x | {"tables": [failures_of(t) for t in x["tables"]]}, unchanged),
    "weighted_sum": (lambda x: x | {"weights": [-w for w in x["weights"]]}, negated),
    "calibration_error": (
        lambda x: failures_of(x) | {"mean_scores": [1.0 - s for s in x["mean_scores"]]},
        unchanged,
    ),
    "worst_gap": (lambda x: x | {"parts": [opposite(part) for part in x["parts"]]}, unchanged),
    "worst_value_gap": (lambda x: x | {"parts": [opposite(part) for part in x["parts"]]}, unchanged),
    "bounded_mean": (opposite, complement),
    "ratio_of_totals": (lambda x: of_negated_ratio(x), negated),
    "ratio_between": (
        lambda x: x | {"below": of_negated_ratio(x["above"]), "above": of_negated_ratio(x["below"])},
        negated,
    ),
    "idealized_association": (lambda x: x | {"stereotype": opposite(x["stereotype"])}, unchanged),
    "clustered_mean": (opposite, complement),
    "clustered_value": (lambda x: x | {"mean": opposite(x["mean"])}, negated),
    "worst_clustered_difference": (
        lambda x: x | {"tables": [t | {"parts": [opposite(part) for part in t["parts"]]} for t in x["tables"]]},
        unchanged,
    ),
    "standardized_difference": (
        lambda x: x | {"centre": -x["centre"], "n_first": x["n_second"], "n_second": x["n_first"]},
        negated,
    ),
    "worst_paired_difference": (
        lambda x: x | {"pairs": [thirds(pair, centre=-pair["centre"]) for pair in x["pairs"]]},
        unchanged,
    ),
}


@pytest.mark.parametrize("kind", MIRRORS)
def test_the_mirror_image_has_mirrored_bounds(kind: str) -> None:
    mirror, bounds_of = MIRRORS[kind]
    estimate = EXAMPLES[kind].usual
    other = ANY.validate_python(mirror(ANY.dump_python(estimate, mode="json")))
    for alpha in (0.2, LEVEL, 1e-6):
        assert other.bounds(alpha) == pytest.approx(bounds_of(estimate.bounds(alpha)), rel=1e-8, abs=1e-9)


# ---- planning ------------------------------------------------------------------------------------------------------


def sign_of(kind: str) -> int:
    return 1 if EXAMPLES[kind].bound > EXAMPLES[kind].ideal else -1


def effect_of(kind: str, estimate: Estimate, alpha: float = LEVEL) -> float:
    x = EXAMPLES[kind]
    return minimum_detectable_effect(estimate, bound=x.bound, alpha=alpha, ideal=x.ideal, sign=sign_of(kind))


def size_of(kind: str, estimate: Estimate, alpha: float = LEVEL, *, sides: int = 1) -> int | None:
    x = EXAMPLES[kind]
    return n_required(estimate, bound=x.bound, alpha=alpha, ideal=x.ideal, n=10_000, sides=sides)


@usual
def test_a_plan_is_there_or_refused_in_words(kind: str) -> None:
    examples = EXAMPLES[kind]
    effect, size = effect_of(kind, examples.usual), size_of(kind, examples.usual)
    assert math.isfinite(effect) == ("effect" in examples.plans)
    assert (size is not None) == ("size" in examples.plans)
    if examples.plans != {"effect", "size"}:
        assert examples.usual.unplanned.endswith(".")
    assert n_required(examples.usual, bound=examples.ideal, alpha=LEVEL, ideal=examples.ideal, n=10_000) is None


def test_these_kinds_alone_are_not_planned() -> None:
    refused = {kind for kind, examples in EXAMPLES.items() if examples.plans != {"effect", "size"}}
    assert refused == {
        "undefined",
        "upper_bound",
        "quantile",
        "odds",
        "confirmed_count",
        "gap_change",
        "exposure",
        "idealized_association",
        "at_most",
        "at_least",
        "worst_bracket_difference",
        "ratio_between",
        "corrected_proportion",
        "worst_corrected_difference",
    }


@pytest.mark.grid(by=kind_of)
@every
def test_what_has_few_rows_has_a_plan_or_none_and_no_error(estimate: Estimate) -> None:
    kind: str = estimate.kind  # type: ignore[attr-defined]
    size = size_of(kind, estimate)
    if size is not None:
        assert size >= 0
    effect, sign, bound = effect_of(kind, estimate), sign_of(kind), EXAMPLES[kind].bound
    if not math.isnan(effect):
        assert sign * (effect - bound) >= 0.0


@pytest.mark.grid
@planned
def test_a_stricter_level_takes_more_rows_and_a_larger_effect(kind: str) -> None:
    examples = EXAMPLES[kind]
    if "size" not in examples.plans:
        effects = [sign_of(kind) * effect_of(kind, examples.usual, alpha) for alpha in (0.1, 0.0125, 1e-4)]
        assert sign_of(kind) * examples.bound < effects[0] < effects[1] < effects[2]
        return
    if kind == "exact":
        assert effect_of(kind, examples.usual) == examples.bound and size_of(kind, examples.usual) == 0
        return
    sizes = [size_of(kind, examples.usual, alpha) for alpha in (0.1, 0.0125, 1e-4)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    two_sided = size_of(kind, examples.usual, sides=2)
    assert two_sided is not None and two_sided >= sizes[1]  # type: ignore[operator]
    if "effect" in examples.plans:
        effects = [sign_of(kind) * effect_of(kind, examples.usual, alpha) for alpha in (0.1, 0.0125, 1e-4)]
        assert sign_of(kind) * examples.bound < effects[0] < effects[1] < effects[2]


# Plans by a normal approximation fall short of what their exact bounds ask for, by at most so many times the size and
# so many times the distance of the effect from the bound.
SHORT: dict[str, tuple[float, float]] = {
    "true_positive_rate_at": (1.9, 3.3),
    "equal_error_rate": (1.05, 7.5),
    "average_precision": (1.4, 1.0),
    "area_difference": (1.4, 1.2),
    "lowest_area": (2.1, 1.5),
    "largest_drop": (1.1, 1.3),
    "smallest_rate": (2.1, 2.0),
    "largest_rate": (2.1, 2.0),
    "bracketed_mean": (1.4, 1.0),
    "bounded_mean": (1.3, 1.0),
    "ratio_of_totals": (1.4, 1.0),
    "ratio_to_largest": (1.0, 1.1),
}


@planned
def test_an_ideal_model_of_the_planned_size_would_pass_and_one_far_smaller_would_not(kind: str) -> None:
    """In expectation: the size for 80 % power is beyond it, by no more than a factor."""
    examples = EXAMPLES[kind]
    assert examples.at is not None
    if kind == "exact" or "size" not in examples.plans:
        return
    ideal = examples.at(examples.ideal)
    size = size_of(kind, ideal)
    assert size is not None

    def passes(times: float) -> bool:
        low, high = scaled(ideal, times).bounds(LEVEL)
        return bool(high <= examples.bound if sign_of(kind) > 0 else low >= examples.bound)

    assert passes(size / 10_000 * SHORT.get(kind, (1.05, 1.0))[0])
    assert not passes(size / 10_000 / 6.0)


@planned
def test_a_model_with_the_detectable_effect_would_fail_and_one_nearer_the_bound_would_not(kind: str) -> None:
    examples = EXAMPLES[kind]
    assert examples.at is not None
    if "effect" not in examples.plans or kind == "exact":
        return
    effect = effect_of(kind, examples.at(examples.ideal))

    def fails(value: float) -> bool:
        assert examples.at is not None
        low, high = examples.at(value).bounds(LEVEL)
        return bool(low > examples.bound if sign_of(kind) > 0 else high < examples.bound)

    assert fails(examples.bound + SHORT.get(kind, (1.05, 1.0))[1] * (effect - examples.bound))
    assert not fails(examples.bound + 0.3 * (effect - examples.bound))


@pytest.mark.parametrize(
    ("kind", "bounds"), [("worst_difference", (0.05, 0.3, 0.7, 0.97)), ("worst_ratio", (0.03, 0.3, 0.7, 0.95))]
)
def test_every_bound_that_the_ideal_meets_with_room_is_planned_for(kind: str, bounds: tuple[float, ...]) -> None:
    at, ideal = EXAMPLES[kind].at, EXAMPLES[kind].ideal
    assert at is not None
    for bound in bounds:
        size = n_required(at(ideal), bound=bound, alpha=LEVEL, ideal=ideal, n=10_000)
        assert size is not None and size > 0
        effect = minimum_detectable_effect(at(ideal), bound=bound, alpha=LEVEL, ideal=ideal, sign=sign_of(kind))
        assert not math.isnan(effect)
    for nothing in (0.0, 1.0):
        assert n_required(at(ideal), bound=nothing, alpha=LEVEL, ideal=ideal, n=10_000) is None
