"""A detector on a channel that it was not made on: what it promises there, what it finds, and what a batch shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import beta, norm

from auditor.core.errors import DataError, UsageError
from auditor.core.rows import FloatArray
from auditor.detection.detection_record import FileResult, FileVerdict
from auditor.detection.detector_calibration import (
    channel_lines,
    judged_together,
    on_channel,
    predictive_value,
    q_values,
)
from auditor.detection.examine_file import silenced
from auditor.models.detector_card import ChannelCalibration, DetectorCard, answer_of
from tests.quantifiers import all_of

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
    card: DetectorCard = CARD,
    name: str = "",
    facts: tuple[str, ...] = (),
) -> list[FileResult]:
    """A file of each score, as the detector would answer it."""
    found = []
    for i, score in enumerate(map(float, scores)):
        p_real, p_fake = card.p_values(score)
        answer, reason = answer_of(card, p_real, p_fake)
        verdict = FileVerdict(answer=answer, reason=reason, probability=score, p_real=p_real, p_fake=p_fake)
        found.append(FileResult(medium="image", sha256=f"{name}{i:05d}{score!r}", verdict=verdict, facts=facts))
    return found


def called_fake(found: Sequence[FileResult]) -> int:
    return sum(result.verdict is not None and result.verdict.answer == "fake" for result in found)


def test_real_files_of_another_collection_are_called_fake_as_seldom_as_promised_once_it_is_known() -> None:
    as_it_came = called_fake(results(drawn(ELSEWHERE, 200)))
    assert as_it_came > 150  # of 200, at a promised 5 %
    known = on_channel(CARD, results(drawn(ELSEWHERE, 50)), ())
    assert called_fake(results(drawn(ELSEWHERE, 2_000), card=known)) / 2_000 < beta.ppf(0.9999, 2, 49)
    assert known.channel is not None and known.channel.fake_before > 35
    said = " ".join(channel_lines(known))
    assert f"called {known.channel.fake_before} of 50" in said and "promised 5%" in said
    assert "--known-fake" in said


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
    answers = {answer_of(card, *card.p_values(score))[0] for score in np.linspace(0.0, 1.0, 101).tolist()}
    assert answers == {"fake", "cannot say"} and card.fake_scores == ()


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


SHARES = (0.0, 0.05, 0.2, 0.5, 0.9)


@pytest.mark.grid
@pytest.mark.parametrize("digits", [1, 15])
@pytest.mark.parametrize(("n_known", "n_batch"), [(19, 5), (60, 40), (200, 200)])
@pytest.mark.parametrize("share", SHARES)
def test_the_error_of_each_file_and_the_false_share_of_the_selected_hold_over_known_mixes(
    share: float, n_known: int, n_batch: int, digits: int
) -> None:
    """Over 1,000 channels of a good detector: no mix raises either rate above 5 %, by 4 standard errors."""
    rng = np.random.default_rng([n_known, n_batch, round(100 * share)])
    wrong, false_shares, of_answers, found = np.zeros((4, 1_000))
    for i in range(1_000):
        known = np.sort(np.round(probability(rng.normal(HOME, 1.0, n_known)), digits))
        is_fake = rng.random(n_batch) < share
        scores = np.round(probability(rng.normal(np.where(is_fake, FAKE, HOME), 1.0)), digits)
        p = (1 + n_known - np.searchsorted(known, scores, "left")) / (n_known + 1)
        answered, selected = p <= 0.05, q_values(p) <= 0.05
        assert not (selected & ~answered).any()
        wrong[i] = answered[~is_fake].sum() / max((~is_fake).sum(), 1)
        found[i] = answered[is_fake].sum() / max(is_fake.sum(), 1)
        false_shares[i] = (selected & ~is_fake).sum() / max(selected.sum(), 1)
        of_answers[i] = (answered & ~is_fake).sum() / max(answered.sum(), 1)
    for rates in (false_shares, wrong):
        assert rates.mean() <= 0.05 + 4 * max(rates.std(), 0.01) / np.sqrt(1_000), (rates.mean(), share)
    if share >= 0.5 and n_known == 200 and digits == 15:
        assert of_answers.mean() <= 0.06 and found.mean() >= 0.9
    if share == 0.5:
        card = CARD.model_copy(
            update={"real_scores": tuple(known.tolist()), "fake_scores": (), "channel": ChannelCalibration()}
        )
        batch = judged_together(card, results(scores, card=card))[1]
        assert batch is not None and (batch.n_fake, batch.n_selected) == (answered.sum(), selected.sum())


def test_what_is_answered_of_a_file_does_not_depend_on_what_it_was_asked_with() -> None:
    card = on_channel(CARD, results(drawn(HOME, 60)), results(drawn(FAKE, 60), name="fake"))
    files = results([*drawn(FAKE, 30), *drawn(HOME, 70), *drawn(ELSEWHERE, 20)], card=card)
    together, batch = judged_together(card, files)
    alone = [judged_together(card, [each])[0][0] for each in files]
    assert called_fake(together) > 30 and batch is not None and batch.n_fake == called_fake(together)
    pairs = [(a.verdict, b.verdict) for a, b in zip(alone, together, strict=True)]
    assert all_of(a is not None and b is not None and (a.answer, a.reason) == (b.answer, b.reason) for a, b in pairs)
    # Alone, a file's q-value is its p-value.
    assert all_of(a is not None and a.q_value == a.p_real for a, _ in pairs)
    assert judged_together(CARD, files) == (files, None) and judged_together(None, files) == (files, None)


def test_q_values_are_scipys() -> None:
    from scipy.stats import false_discovery_control

    p = RNG.integers(1, 40, 200) / 40.0
    np.testing.assert_allclose(q_values(p.tolist()), false_discovery_control(p, method="bh"), atol=1e-12)


# ---- who may answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fakes", "why"),
    [((), "No known fakes"), (drawn(ELSEWHERE, 40), "Nothing shows"), (drawn(HOME - 1.0, 40), "Nothing shows")],
)
def test_what_nothing_shows_to_tell_answers_nothing(fakes: Any, why: str) -> None:
    card = on_channel(CARD, results(drawn(ELSEWHERE, 50, np.random.default_rng(3))), results(fakes, name="fake"))
    sure = results([0.9999], card=card)[0].verdict
    assert sure is not None and sure.answer == "fake" and card.unproven.startswith(why)
    held = silenced(sure, card, ())
    assert (held.answer, held.probability, held.p_real, held.p_fake) == ("cannot say", None, None, None)
    assert held.reason == card.unproven and predictive_value(card, 0.5) is None


def test_no_detector_answers_before_it_is_calibrated_on_a_channel() -> None:
    sure = results([0.9999])[0].verdict
    assert sure is not None and sure.answer == "fake"
    assert silenced(sure, CARD, ()).answer == "cannot say" and "--known-real" in CARD.unproven
    proven = on_channel(CARD, results(drawn(HOME, 50)), results(drawn(FAKE, 50), name="fake"))
    assert not proven.unproven and silenced(sure, proven, ()) == sure


def came(*facts: str, n: int = 40, first: int = 0) -> list[FileResult]:
    found = results(drawn(HOME, n))
    return [each.model_copy(update={"sha256": f"{first + i:064x}", "facts": facts}) for i, each in enumerate(found)]


def test_another_channel_is_told_by_containers_and_nothing_is_answered_about_it() -> None:
    own = ("JPEG tables a", "640 x 480", "metadata exif")
    fakes = results(drawn(FAKE, 40), name="fake", facts=own)
    card = on_channel(CARD, came(*own), fakes)
    sure = results([0.9999], card=card)[0].verdict
    assert sure is not None and silenced(sure, card, own).answer == "fake"
    for other in (("PNG", *own[1:]), (own[0], "64 x 64", own[2]), (*own[:2], "metadata none"), ()):
        held = silenced(sure, card, other)
        assert held.answer == "cannot say" and held.probability is None and "container" in held.reason, other
    # Fakes that came another way show nothing of this one.
    assert on_channel(CARD, came(*own), results(drawn(FAKE, 40), name="fake", facts=("PNG",))).fake_scores == ()
    # Where every file has dimensions of its own, dimensions tell nothing, and encodings still do.
    mixed = [came(own[0], f"{i} x {i}", own[2], n=1, first=i)[0] for i in range(40)]
    card = on_channel(CARD, mixed, [f.model_copy(update={"facts": (own[0], "1 x 2", own[2])}) for f in fakes])
    assert not card.silence((own[0], "999 x 1", own[2]), video=False)
    assert card.silence(("PNG", "999 x 1", own[2]), video=False)


@pytest.mark.grid
@pytest.mark.parametrize("n_kinds", [1, 3, 30, 1_000])
def test_files_of_the_channel_are_held_to_be_of_another_as_seldom_as_promised(n_kinds: int) -> None:
    rng = np.random.default_rng(n_kinds)
    shares = rng.dirichlet(np.full(n_kinds, 0.5))
    held = []
    for _ in range(600):
        kinds = rng.choice(n_kinds, size=(31, 2), p=shares)
        channel = ChannelCalibration(facts=tuple((f"e{a}", f"d{b}") for a, b in kinds[:-1].tolist()))
        held.append(channel.p_value((f"e{kinds[-1, 0]}", f"d{kinds[-1, 1]}")) <= 0.05)
    assert np.mean(held) <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 600)


# ---- rates ----------------------------------------------------------------------------------------------------------


def test_the_predictive_value_is_bayes_rule_and_its_interval_covers() -> None:
    card = on_channel(CARD, results(drawn(HOME, 99)), results(drawn(FAKE, 100), name="fake"))
    assert card.channel is not None
    power = card.channel.n_found / 100
    worth = predictive_value(card, 0.01)
    assert worth is not None and worth.value == pytest.approx(0.01 * power / (0.01 * power + 0.99 * 0.05))
    assert 0.0 < worth.low < worth.value < worth.high < 0.5
    rng = np.random.default_rng(1)
    outside = 0
    for _ in range(100):
        known, fakes = rng.normal(0.0, 1.0, 60), rng.normal(norm.ppf(0.95), 1.0, 60)
        real_scores, fake_scores = (tuple(np.sort(probability(z)).tolist()) for z in (known, fakes))
        new = CARD.model_copy(update={"real_scores": real_scores, "fake_scores": fake_scores})
        n_found = sum(new.p_values(score)[0] <= 0.05 for score in fake_scores)
        card = new.model_copy(update={"channel": ChannelCalibration(n_fake=60, n_found=n_found)})
        found = predictive_value(card, 0.1)
        assert found is not None
        threshold = np.sort(known)[-3]  # 3 of 61 is the rank at 5 %
        alarms, power = 1.0 - norm.cdf(threshold), 1.0 - norm.cdf(threshold - norm.ppf(0.95))
        true = 0.1 * power / (0.1 * power + 0.9 * alarms)
        outside += not found.low <= true <= found.high
    assert outside / 100 <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 100)


def test_at_another_error_rate_the_fakes_found_are_counted_anew() -> None:
    card = on_channel(CARD, results(drawn(HOME, 199)), results(drawn(ELSEWHERE, 100), name="fake"))
    strict = card.at_error_rate(0.01)
    made_so = on_channel(CARD, results(drawn(HOME, 199)), (), error_rate=0.01)
    assert card.channel is not None and strict.channel is not None and made_so.error_rate == 0.01
    assert 0 < strict.channel.n_found < card.channel.n_found
    with pytest.raises(UsageError, match="at least 999 files known to be real"):
        card.at_error_rate(0.001)


@pytest.mark.grid
@pytest.mark.parametrize("n_mixed_in", [0, 5])
def test_a_trimmed_calibration_keeps_its_stated_rate_and_its_power(n_mixed_in: int) -> None:
    """5 fakes among 100 files named as real: without trimming they take power, with it the stated loss is all."""
    rng = np.random.default_rng(n_mixed_in)
    alarms, power, untrimmed, warned = [], [], [], 0
    for _ in range(60):
        named = np.r_[rng.normal(HOME, 1.0, 100 - n_mixed_in), rng.normal(FAKE, 1.0, n_mixed_in)]
        new, fakes = rng.normal(HOME, 1.0, 20), rng.normal(FAKE, 1.0, 20)
        known_fakes = results(drawn(FAKE, 60, rng), name="fake")
        card, plain = (on_channel(CARD, results(probability(named)), known_fakes, trim=trim) for trim in (0.05, 0.0))
        alarms += [card.p_values(s)[0] <= 0.05 for s in probability(new)]
        power += [card.p_values(s)[0] <= 0.05 for s in probability(fakes)]
        untrimmed += [plain.p_values(s)[0] <= 0.05 for s in probability(fakes)]
        warned += any("--trim" in line for line in channel_lines(plain))
    stated = next(line for line in channel_lines(card) if "left out since they may be fake" in line)
    assert card.channel is not None and card.channel.n_trimmed == 5 and "9.4% are called" in stated
    assert np.mean(alarms) <= 0.094 + 4 * np.sqrt(0.094 * 0.906 / 60)
    if n_mixed_in:
        assert np.mean(untrimmed) + 0.08 < np.mean(power) > 0.93 and warned >= 55
    else:
        assert warned <= 0.2 * 60
