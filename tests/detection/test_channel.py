"""A detector on a channel that it was not made on: what it promises there, what it finds, and what a batch shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import beta

from auditor.core.errors import DataError
from auditor.core.rows import FloatArray
from auditor.detection.detection_record import FileResult, FileVerdict
from auditor.detection.detector_calibration import ALARM_LEVEL, channel_lines, judged_together, on_channel
from auditor.models.detector_card import DetectorCard, answer_of
from tests.quantifiers import all_of, none_of

RNG = np.random.default_rng(23)


def probability(z: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-z)), np.float64)


# Real files of another collection lie where the synthetic ones of the training lay.
HOME, FAKE, ELSEWHERE, FAKE_ELSEWHERE = -2.0, 2.0, 1.5, 3.5


def drawn(centre: float, n: int, rng: np.random.Generator = RNG) -> FloatArray:
    return probability(rng.normal(centre, 1.0, n))


CARD = DetectorCard(
    medium="image",
    fake=1,
    real_scores=tuple(np.sort(drawn(HOME, 100)).tolist()),
    fake_scores=tuple(np.sort(drawn(FAKE, 100)).tolist()),
)


def results(
    scores: Sequence[float] | FloatArray,
    novelties: Sequence[float] | FloatArray | None = None,
    card: DetectorCard = CARD,
) -> list[FileResult]:
    """A file of each score, as the detector would answer it."""
    found = []
    for i, score in enumerate(map(float, scores)):
        novelty = None if novelties is None else float(novelties[i])
        p_real, p_fake = card.p_values(score)
        answer, reason = answer_of(card, p_real, p_fake, novelty)
        verdict = FileVerdict(
            answer=answer, reason=reason, probability=score, p_real=p_real, p_fake=p_fake, novelty=novelty
        )
        found.append(FileResult(medium="image", sha256=f"{i:05d}{score!r}", verdict=verdict))
    return found


def called_fake(found: Sequence[FileResult]) -> int:
    return sum(result.verdict is not None and result.verdict.answer == "fake" for result in found)


def test_real_files_of_another_collection_are_called_fake_as_seldom_as_promised_once_it_is_known() -> None:
    as_it_came = called_fake(results(drawn(ELSEWHERE, 200)))
    assert as_it_came > 150  # of 200, at a promised 5 %
    known = on_channel(CARD, results(drawn(ELSEWHERE, 50)), ())
    assert called_fake(results(drawn(ELSEWHERE, 2_000), card=known)) / 2_000 < beta.ppf(0.9999, 2, 49)
    assert known.channel is not None and known.channel.fake_before > 35
    assert known.channel.moved is not None and known.channel.moved < 1e-6
    said = " ".join(channel_lines(known))
    assert f"called {known.channel.fake_before} of 50" in said and "promised 5%" in said
    assert "not like the real files" in said and "--known-fake" in said


@pytest.mark.parametrize("n", [19, 50])
def test_the_promise_holds_over_channels_and_known_files(n: int) -> None:
    """Over 4,000 channels, each with n known files and one new one; the bound is 4 standard errors above."""
    rng = np.random.default_rng(n)
    wrong = 0
    for _ in range(4_000):
        known, new = np.sort(rng.normal(size=n)), rng.normal()
        card = CARD.model_copy(update={"real_scores": tuple(probability(known).tolist())})
        wrong += card.p_values(float(probability(np.asarray([new]))[0]))[0] <= card.error_rate
    rank = int(0.05 * (n + 1) + 1e-9)
    assert abs(wrong / 4_000 - rank / (n + 1)) <= 4 * np.sqrt(0.05 * 0.95 / 4_000)


def test_what_it_finds_of_known_fakes_is_said_with_an_exact_interval() -> None:
    known, fakes = drawn(ELSEWHERE, 50), drawn(ELSEWHERE + 0.2, 40)
    card = on_channel(CARD, results(known), results(fakes))
    second = np.sort(known)[-2]
    found = int((fakes > second).sum())
    assert card.channel is not None and (card.channel.n_found, card.channel.n_fake) == (found, 40)
    low = beta.ppf(0.025, found, 41 - found) if found else 0.0
    high = beta.ppf(0.975, found + 1, 40 - found)
    (line,) = [line for line in channel_lines(card) if "known fakes" in line]
    assert line == (
        f"of 40 known fakes it finds {found} of 40 ({found / 40:.0%}, 95 % interval [{low:.0%}, {high:.0%}])"
    )
    assert len(card.fake_scores) == 40


def test_without_known_fakes_nothing_speaks_against_fake() -> None:
    card = on_channel(CARD, results(drawn(ELSEWHERE, 50)), ())
    answers = {answer_of(card, *card.p_values(score), None)[0] for score in np.linspace(0.0, 1.0, 101).tolist()}
    assert answers == {"fake", "cannot say"} and card.fake_scores == ()


def test_no_novelty_beyond_the_trainings_ends_in_cannot_say_on_the_channel() -> None:
    strict = CARD.model_copy(update={"novelties": (1.0,) * 19})
    known = results(drawn(ELSEWHERE, 50), np.full(50, 4.0), strict)
    assert called_fake(known) == 0
    card = on_channel(strict, known, ())
    assert card.novelties == () and called_fake(results([0.9999], [9.0], card)) == 1


def test_files_that_the_detector_was_trained_on_count_neither_as_real_nor_as_found() -> None:
    """One that memorised gives its own real files 0 and its own fakes 1, and knows nothing of others."""
    learnt = [f"{i:016x}" for i in range(60)]
    memorised = CARD.model_copy(update={"trained_on": tuple(learnt)})
    own = [r.model_copy(update={"sha256": d + "0" * 48})
           for r, d in zip(results([0.0] * 30 + [1.0] * 30), learnt, strict=True)]  # fmt: skip
    new_real, new_fake = results(drawn(ELSEWHERE, 40)), results(drawn(ELSEWHERE, 40))
    card = on_channel(memorised, [*own[:30], *new_real], [*own[30:], *new_fake])
    alone = on_channel(memorised, new_real, new_fake)
    assert card == alone and card.channel is not None and card.channel.n_fake == 40
    with pytest.raises(DataError, match=r"0 different files known to be real .* trained on as it was on 30 of these"):
        on_channel(memorised, own[:30], own[30:])


@pytest.mark.parametrize(
    "bent",
    [
        {"channel": {"n_fake": 40, "n_found": 40}},
        {"channel": {"n_fake": 10_000, "n_found": 10_000}},
        {"channel": {"fake_before": 51}},
        {"real_scores": []},
        {"fake_scores": [1.0] * 40},
        {"error_rate": 0.01},
    ],
)
def test_a_card_bent_by_hand_contradicts_itself(bent: dict[str, Any]) -> None:
    """What is said of a channel follows from the scores of its files, and is no word of whoever wrote the card."""
    known = on_channel(CARD, results(drawn(ELSEWHERE, 50)), results(drawn(ELSEWHERE, 40))).model_dump(mode="json")
    assert DetectorCard.model_validate(known).channel is not None
    wrong = {**known, **bent, "channel": {**known["channel"], **bent.get("channel", {})}}
    with pytest.raises(ValidationError, match="channel"):
        DetectorCard.model_validate(wrong)


def test_nineteen_different_files_are_the_fewest() -> None:
    nineteen = results(drawn(ELSEWHERE, 19))
    assert called_fake(results([0.9999], card=on_channel(CARD, nineteen, ()))) == 1
    for few in (nineteen[:18], [*nineteen[:18], nineteen[0]]):
        with pytest.raises(DataError, match=r"18 different files .* at least 19"):
            on_channel(CARD, few, ())
    with pytest.raises(DataError, match="1 files are known to be real and known to be fake"):
        on_channel(CARD, nineteen, nineteen[3:4])


def test_a_batch_that_came_another_way_raises_the_alarm_and_none_of_it_is_called_fake() -> None:
    card = on_channel(CARD, results(drawn(HOME, 50)), ())
    moved = results(drawn(ELSEWHERE, 30), card=card)
    assert called_fake(moved) > 20
    held, shift = judged_together(card, moved)
    assert shift is not None and shift.alarm and called_fake(held) == 0
    assert none_of(r.verdict is None or r.verdict.answer == "fake" for r in held)
    assert "Asked by itself" in held[int(np.argmax([called_fake([r]) for r in moved]))].verdict.reason  # type: ignore[union-attr]
    alone, shift = judged_together(card, moved[:1])
    assert shift is not None and not shift.alarm and not shift.visible and alone == moved[:1]
    assert judged_together(CARD, moved) == (moved, None) and judged_together(None, moved) == (moved, None)


def test_the_alarm_is_as_rare_as_it_says_where_nothing_moved_and_sees_what_scores_do_not() -> None:
    rng = np.random.default_rng(5)
    alarms = seen = 0
    for _ in range(150):
        known = results(drawn(HOME, 30, rng), rng.normal(size=30))
        card = on_channel(CARD, known, ())
        same = judged_together(card, results(drawn(HOME, 20, rng), rng.normal(size=20), card))[1]
        other = judged_together(card, results(drawn(HOME, 20, rng), rng.normal(2.5, 1.0, 20), card))[1]
        assert same is not None and other is not None
        alarms += same.alarm
        seen += other.alarm
    assert alarms / 150 <= ALARM_LEVEL + 3 * np.sqrt(ALARM_LEVEL / 150)
    assert seen / 150 >= 0.95


def test_what_a_batch_could_show_is_said() -> None:
    card = on_channel(CARD, results(np.linspace(0.1, 0.2, 19)), ())
    for n in (1, 2, 3, 6):
        _, shift = judged_together(card, results(np.linspace(0.8, 0.9, n), card=card))
        assert shift is not None and shift.alarm is shift.visible, (n, shift)
    assert all_of(shift is not None for shift in [judged_together(card, results([0.5], card=card))[1]])
