"""Explanations as figures: cut to a size, said in words, and without the rows of the data behind them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from auditor.judging.figure_types import (
    LONGEST_WORD,
    MOST_DOTS,
    MOST_HEATMAPS,
    MOST_PIXELS,
    MOST_SWARMS,
    MOST_TEXTS,
    MOST_WORDS,
    Grade,
    GradedMethod,
    GradeTable,
)
from probes.attribution.attribution_figures import (
    beeswarm_figure,
    grades_figure,
    heatmap_figure,
    text_figure,
)
from tests.quantifiers import all_of, none_of

PROBE = "feature_attribution"


# ---- texts ---------------------------------------------------------------------------------------------------------


def test_texts_are_cut_and_what_is_left_out_is_counted() -> None:
    words = [["w" * 100] * (MOST_WORDS + 7)] + [["a", "b"]] * MOST_TEXTS
    values = [[0.5] * len(w) for w in words]
    figure = text_figure(PROBE, "lime", words, values, ["t"] * len(words), output="the score")
    assert len(figure.texts) == MOST_TEXTS and figure.texts[0].left_out == 7
    assert figure.texts[0].words[0] == "w" * (LONGEST_WORD - 1) + "…"
    assert "1 more texts were explained" in figure.caption


def test_the_alternative_names_the_words_that_matter_most() -> None:
    figure = text_figure(
        PROBE,
        "lime",
        [["I", "am", "gay", "and", "tall"]],
        [[0.1, -0.4, 1.8, np.nan, 0.3]],
        ["row 1"],
        output="the score",
    )
    assert figure.alt == "1 texts. row 1: most is contributed by “gay” +1.8, “am” −0.4, “tall” +0.3."
    assert figure.texts[0].values == (0.1, -0.4, 1.8, None, 0.3)
    nothing = text_figure(PROBE, "lime", [["I"]], [[0.0]], ["row 1"], output="the score")
    assert nothing.alt == "1 texts. row 1: most is contributed by no word."


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_a_map_is_its_positive_part_over_the_picture() -> None:
    values = np.zeros((30, 30))
    values[2:5, 25:28], values[20, 5] = 2.0, -6.0
    picture = np.full((30, 30, 3), 90, np.uint8)
    (shown,) = heatmap_figure(PROBE, "lime", [values], ["cat"], output="the score", pictures=[picture]).heatmaps
    assert shown.low == 0.0 and shown.high == 2.0
    assert (shown.pixels() == np.where(values > 0, 255, 0)).all()
    seen = shown.photograph()
    assert seen is not None and (seen == picture).all()
    # Nine pixels hold 18; the first five of them 10 of it: five of 900 pixels; 6 of 24 speak against.
    assert shown.detail == (
        "Half of what speaks for it lies in 1% of the picture, around the upper right. "
        "25% of all contributions speak against it and are not drawn."
    )


def test_the_picture_stays_out_unless_it_is_given() -> None:
    figure = heatmap_figure(PROBE, "lime", [np.eye(9)], ["cat"], output="the score")
    assert figure.heatmaps[0].picture == "" and "were not asked for" in figure.caption


@pytest.mark.parametrize("shape", [(500, 301), (224, 224), (1, 1)])
def test_large_pictures_are_averaged_down(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(shape)
    picture = np.full((*shape, 4), 7, np.uint8)
    (shown,) = heatmap_figure(PROBE, "lime", [values], ["a"], output="o", pictures=[picture]).heatmaps
    size = shown.pixels().shape
    assert size == tuple(min(n, MOST_PIXELS) for n in shape)
    seen = shown.photograph()
    assert seen is not None and seen.shape == (*size, 3) and (seen == 7).all()


def test_odd_maps_are_shown_too() -> None:
    maps = [np.zeros((4, 4)), np.full((4, 4), np.nan), -np.ones((4, 4)), np.full((4, 4), 1e-300)]
    figure = heatmap_figure(PROBE, "lime", maps, ["a"] * 4, output="o", smoothing=0.1)
    assert [h.high for h in figure.heatmaps[:3]] == [0.0, 0.0, 0.0]
    assert all_of("Nothing in the picture speaks for it" in h.detail for h in figure.heatmaps[:3])
    many = heatmap_figure(PROBE, "lime", [np.eye(3)] * (MOST_HEATMAPS + 2), ["a"] * 10, output="o")
    assert len(many.heatmaps) == MOST_HEATMAPS and "2 more were explained" in many.caption


def test_one_bright_pixel_does_not_darken_the_rest() -> None:
    values = np.ones((30, 30))
    values[0, 0] = 1e6
    (shown,) = heatmap_figure(PROBE, "lime", [values], ["a"], output="o").heatmaps
    assert shown.high == 1.0 and shown.pixels().min() == 255


# ---- grades --------------------------------------------------------------------------------------------------------


def test_the_table_says_its_grades_in_words() -> None:
    grades = (Grade(value=0.3, low=0.2, high=0.4), Grade(words="no gradient"))
    method = GradedMethod(method="lime", standing="refused", reason="r", grades=grades)
    table = GradeTable(grades=("comprehensiveness", "deletion_auc"), better=("higher", "lower"), methods=(method,))
    assert grades_figure(PROBE, table).alt == "lime: refused (comprehensiveness +0.3, deletion auc not measured)."


# ---- swarms --------------------------------------------------------------------------------------------------------


def _swarm(
    n: int = 500, d: int = 15, seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({f"x{i}": rng.normal(size=n) for i in range(d)})
    return rows, rows.to_numpy() * 0.8 ** np.arange(d)


def test_the_largest_features_come_first_and_their_number_is_bounded() -> None:
    rows, values = _swarm()
    figure = beeswarm_figure(
        PROBE, "shap_tree", list(rows), values, rows, output="the score", rng=np.random.default_rng(1)
    )
    assert [s.feature for s in figure.swarms] == [f"x{i}" for i in range(MOST_SWARMS)]
    assert all_of(len(s.values) == MOST_DOTS for s in figure.swarms)
    assert "The other 3 contribute less." in figure.caption
    again = beeswarm_figure(
        PROBE, "shap_tree", list(rows), values, rows, output="the score", rng=np.random.default_rng(1)
    )
    assert again == figure


def test_ranks_are_those_of_the_rows_own_values() -> None:
    rows, values = _swarm(n=MOST_DOTS, d=1)
    (swarm,) = beeswarm_figure(PROBE, "m", ["x0"], values, rows, output="o", rng=np.random.default_rng(0)).swarms
    # The attribution is the value itself: ranks ascend with it, and each fifth has a fifth of the rows.
    assert list(swarm.ranks) == sorted(r for r in swarm.ranks if r is not None)
    assert np.bincount([r for r in swarm.ranks if r is not None]).tolist() == [MOST_DOTS // 5] * 5
    assert np.allclose(swarm.values, np.sort(values[:, 0]), atol=np.ptp(values) / 400 + 1e-12)


def test_two_values_are_low_and_high_gaps_and_words_have_no_rank() -> None:
    n = 20
    rows = pd.DataFrame(
        {
            "yes": [0] * 17 + [1] * 3,
            "gap": [np.nan] * 5 + list(range(15)),
            "word": ["a", "b"] * 10,
            "flag": [True] * 10 + [False] * 10,
        }
    )
    values = np.arange(4 * n, dtype=float).reshape(n, 4)
    figure = beeswarm_figure(PROBE, "m", list(rows), values, rows, output="o", rng=np.random.default_rng(0))
    ranks = {s.feature: s.ranks for s in figure.swarms}
    assert ranks["yes"] == (0,) * 17 + (4,) * 3
    assert ranks["gap"][:5] == (None,) * 5 and set(ranks["gap"][5:]) == {0, 1, 2, 3, 4}
    assert set(ranks["word"]) == {None}
    assert ranks["flag"] == (4,) * 10 + (0,) * 10


def test_no_row_of_the_data_can_be_read_off_a_swarm() -> None:
    rows, values = _swarm(n=200, d=3)
    figure = beeswarm_figure(PROBE, "m", list(rows), values, rows, output="o", rng=np.random.default_rng(0))
    told = json.dumps(figure.model_dump())
    assert none_of(f"{v:.6g}" in told for v in rows.to_numpy().ravel())
    # Values lie on a grid of a 200th of the range, and ascend, so that the n-th dots of two features tell nothing.
    step = np.ptp(values) / 200
    for swarm in figure.swarms:
        places = np.asarray(swarm.values) / step
        assert np.abs(places - places.round()).max() < 1e-6
        assert list(swarm.values) == sorted(swarm.values)


def test_a_table_without_rows_has_a_figure_without_dots() -> None:
    rows = pd.DataFrame({"a": np.empty(0), "b": np.empty(0)})
    figure = beeswarm_figure(PROBE, "m", ["a", "b"], np.empty((0, 2)), rows, output="o", rng=np.random.default_rng(0))
    assert figure.swarms == () and "none" in figure.alt
