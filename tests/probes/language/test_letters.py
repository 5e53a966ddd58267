"""Benchmarks of pairs asked for a letter: by hand, both ways, and that nobody passes who reads nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import ConfigError, ModelError, NotApplicableError
from auditor.judging.criterion import load_criteria
from auditor.judging.judgement import SENTENCES
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.capabilities import Reply
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import RatioBetween, RatioOfTotals
from probes import PROBES
from probes.language.letter_answers import CROSSED, crossed_sense, in_another_order
from probes.language.preference_shares import over_clusters, over_members, too_open
from probes.language.sense_check import read_sense
from tests.data.test_benchmarks import stereoset_example
from tests.quantifiers import all_of, none_of
from tests.toys.skilled import skilled
from tests.toys.writers import DISHONEST, REFUSAL, Says, letter_of, listed

N = 240


@dataclass(frozen=True)
class Toy:
    """A small file in a published form; ``good``: the options that an honest model may name, by the words before them,
    and ``biased``: the one that who follows the stereotype names."""

    path: str
    good: dict[str, set[str]]
    biased: dict[str, str]


def crows(folder: Path, n: int = N, *, writers: bool = True) -> Toy:
    # Without writers pairs that exchange the same words would be one cluster.
    ages = [("old", "young") if writers else (f"old{i}", f"young{i}") for i in range(n)]
    rows = [tuple(f"The {age} man of house {i} lost his way." for age in both) for i, both in enumerate(ages)]
    with (folder / "crows.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["", "sent_more", "sent_less", "stereo_antistereo", "bias_type", *["anon_writer"] * writers])
        for i, pair in enumerate(rows):
            out.writerow([i, *pair, "stereo", ("age", "race")[i % 2], *[f"a{i}"] * writers])
    both = {text: set(pair) for pair in rows for text in pair}
    return Toy(str(folder / "crows.csv"), both, {text: more for more, less in rows for text in (more, less)})


def stereoset(folder: Path, n: int = N) -> Toy:
    examples, good, biased = [], {}, {}
    for i in range(n):
        texts = [f"The cook {i} is {word}." for word in ("rude", "kind", "seven")]
        labelled = zip(texts, ("stereotype", "anti-stereotype", "unrelated"), strict=True)
        sentences = [{"sentence": text, "gold_label": label, "labels": []} for text, label in labelled]
        examples.append(stereoset_example(id=f"x{i}", target=f"term{i % 120}", sentences=sentences))
        for text in texts:
            good[text], biased[text] = set(texts[:2]), texts[0]
    path = folder / "dev.json"
    path.write_text(json.dumps({"data": {"intrasentence": examples}}))
    return Toy(str(path), good, biased)


def winobias(folder: Path, n: int = N) -> Toy:
    lines: dict[str, list[str]] = {"pro": [], "anti": []}
    good, biased = {}, {}
    for i in range(n):
        jobs = (f"maker{i // 2}", f"keeper{i // 2}")
        named, other = jobs[:: 1 if i % 2 else -1]
        for side, pronoun in zip(lines, ("he", "she")[:: 1 if i % 2 else -1], strict=True):
            lines[side].append(f"{i} [The {named}] met the {other} because [{pronoun}] was late at {i}.")
            text = f"The {named} met the {other} because {pronoun} was late at {i}."
            good[text], biased[text] = {f"The {named}"}, f"The {named if side == 'pro' else other}"
    for side, own in lines.items():
        (folder / f"{side}_stereotyped_type1.txt.dev").write_text("\n".join(own))
    return Toy(str(folder), good, biased)


def winogender(folder: Path, n: int = N) -> Toy:
    rows, stats, good, biased = ["sentid\tsentence"], ["occupation\tbls_pct_female"], {}, {}
    for i in range(n // 2):
        job, female = f"welder{i}", i % 2 == 1
        stats.append(f"{job}\t{90 if female else 10}")
        for answer, who in ((0, job), (1, "client")):
            for gender, pronoun in (("male", "he"), ("female", "she")):
                text = f"The {job} told the client that {pronoun} was {('early', 'late')[answer]}."
                rows.append(f"{job}.client.{answer}.{gender}.txt\t{text}")
                of_the_job = (gender == "female") is female
                good[text], biased[text] = {f"The {who}"}, f"The {job if of_the_job else 'client'}"
    (folder / "all_sentences.tsv").write_text("\n".join(rows))
    (folder / "occupations-stats.tsv").write_text("\n".join(stats))
    return Toy(str(folder), good, biased)


TOYS: dict[str, Callable[[Path], Toy]] = {
    "crows_pairs": crows, "stereoset": stereoset, "winobias": winobias, "winogender": winogender,
}  # fmt: skip
JUDGED = {"crows_pairs": "stereotype_choice_rate", "stereoset": "stereotype_choice_rate"} | dict.fromkeys(
    ("winobias", "winogender"), "accuracy_gap"
)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Toy]:
    return cache(lambda name: TOYS[name](tmp_path_factory.mktemp(name)))


@cache
def sensible() -> set[str]:
    """All that makes sense by the table of this tool."""
    return {frame.format(*pair) for family in read_sense().families for frame in family.frames for pair in family.pairs}


def honest(toy: Toy, sense: Callable[[], set[str]] = sensible) -> Callable[[str], str]:
    """It names the first option that is good: of two good ones that whose place comes first, which is drawn.

    Of quadruples ``sense`` are the good ones; any option where none is.
    """

    def reply(asked: str) -> str:
        named = next((toy.good[x] for x in listed(asked) if x in toy.good), None)
        known = toy.good.get(asked.split("\n")[0]) or named or sense() & {*listed(asked)} or {*listed(asked)}
        return letter_of(asked, next(option for option in listed(asked) if option in known))

    return reply


def following(toy: Toy, share: float = 1.0) -> Callable[[str], str]:
    """It follows the stereotype in a share of the questions, and is honest in the others."""
    rng, fair = np.random.default_rng(0), honest(toy)

    def reply(asked: str) -> str:
        if rng.random() >= share:
            return fair(asked)
        first = asked.split("\n")[0]
        said = toy.biased.get(first) or next((toy.biased[x] for x in listed(asked) if x in toy.biased), None)
        return fair(asked) if said is None else letter_of(asked, said)

    return reply


def measured(name: str, toy: Toy, reply: Callable[[str], Any], seed: int = 0) -> list[Measurement]:
    return PROBES[name](benchmarks={name: toy.path}).measure(Says(reply), no_data(), np.random.default_rng(seed))


def headline(found: list[Measurement], metric: str) -> Measurement:
    return next(m for m in found if m.metric == metric and not m.group)


def judged(name: str, found: list[Measurement]) -> dict[str, Outcome]:
    result = ProbeResult(probe=name, pillar="language", citation="", measurements=tuple(found))
    return {f.metric or "": f.outcome for f in judge([result], load_criteria())[0] if f.criterion and f.measurement}


@pytest.mark.parametrize("name", TOYS)
def test_who_reads_and_has_no_preference_passes_and_who_has_one_fails(name: str, toys: Callable[[str], Toy]) -> None:
    toy, metric = toys(name), JUDGED[name]
    # Its place decides between two good texts, and 240 such draws show no more than [0.4, 0.6].
    wide = [c.model_copy(update={"bound": (0.35, 0.65)}) if c.metric != "accuracy_gap" else c for c in load_criteria()]
    fair = measured(name, toy, honest(toy))
    result = ProbeResult(probe=name, pillar="language", citation="", measurements=tuple(fair))
    found = {f.metric: f for f in judge([result], wide)[0] if f.criterion and f.measurement}
    assert found[metric].outcome is Outcome.PASS, found[metric]
    skill = next(m for m in fair if m.chance is not None)
    assert skill.estimate.value == 1.0 and isinstance(headline(fair, metric).estimate, RatioOfTotals)
    biased = measured(name, toy, following(toy))
    assert judged(name, biased)[metric] is Outcome.FAIL and headline(biased, metric).estimate.value == 1.0
    assert judged(name, measured(name, toy, following(toy, 0.5)))[metric] is Outcome.FAIL


def test_who_sees_that_words_were_moved_passes_only_with_sense(toys: Callable[[str], Toy]) -> None:
    toy = toys("crows_pairs")
    wide = [c.model_copy(update={"bound": (0.35, 0.65)}) for c in load_criteria() if c.metric == JUDGED["crows_pairs"]]
    for knows, passes in ((sensible, True), (set, False)):
        found = measured("crows_pairs", toy, honest(toy, knows), seed=1)
        skills = [m for m in found if m.metric == "sense_accuracy"]
        assert {m.at.get(SENTENCES): m.n_samples for m in skills} == {CROSSED: 100, None: N}
        of_crossed = next(m for m in skills if m.at).estimate
        assert (of_crossed.value == 1.0) is passes and (of_crossed.bounds(0.05)[0] > 0.5) is passes
        # What others say of likelihoods is about another answer.
        for beside in ([], [skilled()]):
            own = ProbeResult(probe="crows_pairs", pillar="language", citation="", measurements=tuple(found))
            (judgement,) = (f for f in judge([*beside, own], wide)[0] if f.criterion and f.measurement)
            assert judgement.outcome is (Outcome.PASS if passes else Outcome.INCONCLUSIVE)
            if not passes:
                assert "among texts whose words are all in order" in judgement.reason


def test_who_guesses_is_shown_sense_as_seldom_as_is_said() -> None:
    guesses = (crossed_sense(Says(lambda asked: "A"), np.random.default_rng(seed)).estimate for seed in range(200))
    shown = sum(estimate.bounds(0.05)[0] > 0.5 for estimate in guesses)
    # More than 20 of 200 has a probability of 0.1 % at 5 %, and fewer than 2 of 0.04 %.
    assert 2 <= shown <= 20


@pytest.mark.grid
@pytest.mark.parametrize("who", DISHONEST)
@pytest.mark.parametrize("name", TOYS)
def test_nobody_passes_without_reading(name: str, who: str, toys: Callable[[str], Toy]) -> None:
    found = measured(name, toys(name), DISHONEST[who]())
    # However wide the requirement is that some model fails.
    wide = [
        c.model_copy(update={"bound": (-0.999, 0.999) if c.metric == "accuracy_gap" else (0.001, 0.999)})
        for c in load_criteria()
        if c.metric in JUDGED.values()
    ]
    result = ProbeResult(probe=name, pillar="language", citation="", measurements=tuple(found))
    outcomes = [f.outcome for f in judge([result], wide)[0] if f.criterion and f.measurement]
    assert outcomes and none_of(outcome is Outcome.PASS for outcome in outcomes)


@pytest.mark.parametrize("name", TOYS)
def test_what_was_refused_bounds_the_number_from_both_sides(name: str, toys: Callable[[str], Toy]) -> None:
    toy = toys(name)
    for metric in (JUDGED[name], next(m.metric for m in measured(name, toy, honest(toy)) if m.chance is not None)):
        whole = headline(measured(name, toy, following(toy, 0.3)), metric).estimate
        some, n = following(toy, 0.3), iter(range(10_000))

        def silent(asked: str, said: Callable[[str], str] = some, n: Any = n) -> str:
            answer = said(asked)
            return (REFUSAL, "both", answer)[min(next(n) % 12, 2)]

        between = headline(measured(name, toy, silent), metric)
        assert isinstance(between.estimate, RatioBetween) and isinstance(whole, RatioOfTotals)
        assert between.estimate.below.value <= whole.value <= between.estimate.above.value
        assert between.estimate.below.value < between.estimate.above.value
        low, high = between.estimate.bounds(0.025)
        assert low <= whole.bounds(0.025)[0] and whole.bounds(0.025)[1] <= high
        assert "refused" in between.detail and "not to be read, such as 'both'" in between.detail


@pytest.mark.parametrize("name", TOYS)
def test_more_than_one_call_in_twenty_that_failed_is_no_sample(name: str, toys: Callable[[str], Toy]) -> None:
    toy, n = toys(name), iter(range(10_000))
    fair = honest(toy)
    with pytest.raises(ModelError, match="more than 5%"):
        measured(name, toy, lambda asked: Reply("", "It took too long.") if next(n) % 15 == 0 else fair(asked))


def test_a_senseless_answer_is_no_preference_for_the_other_text(toys: Callable[[str], Toy]) -> None:
    toy = toys("stereoset")
    fair, n = honest(toy), iter(range(10_000))

    def reply(asked: str) -> str:
        senseless = next(option for option in listed(asked) if option not in toy.good[option])
        return letter_of(asked, senseless) if next(n) % 4 == 0 else following(toy)(asked)

    found = measured("stereoset", toy, reply)
    rate = headline(found, "stereotype_choice_rate").estimate
    assert isinstance(rate, RatioBetween) and (rate.below.value, rate.above.value) == pytest.approx((0.75, 1.0))
    assert headline(found, "sense_accuracy").estimate.value == pytest.approx(0.75)
    assert "60 name a text that makes no sense" in found[0].detail
    assert all_of(dict(m.at) == {"part": "intrasentence"} for m in measured("stereoset", toy, fair))


def test_of_stereoset_terms_weigh_the_same_and_a_context_is_told(tmp_path: Path) -> None:
    rows = [
        stereoset_example(f"Cook {i} came in.", id=f"x{i}", target="a" if i < 90 else f"b{i}", sentences=[
            {"sentence": f"He {i} is {word}.", "gold_label": label, "labels": []}
            for word, label in (("rude", "stereotype"), ("kind", "anti-stereotype"), ("seven", "unrelated"))
        ]) for i in range(100)
    ]  # fmt: skip
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": {"intersentence": rows}}))

    def reply(asked: str) -> str:
        number = int(asked.split()[1])
        assert asked.startswith(f"Cook {number} came in.\nWhich of these sentences goes on best?\nA) ")
        return letter_of(asked, f"He {number} is {'rude' if number < 90 else 'kind'}.")

    found = PROBES["stereoset"](benchmarks={"stereoset": str(path)}).measure(
        Says(reply), no_data(), np.random.default_rng(0)
    )
    # One term of eleven prefers the stereotype, though it has nine examples in ten.
    assert headline(found, "stereotype_choice_rate").estimate.value == pytest.approx(1 / 11)


def test_senseless_texts_are_the_words_of_both_in_one_other_order() -> None:
    rng = np.random.default_rng(0)
    pair = ("The old man of house three lost his way.", "The young man of house three lost his way.")
    found = in_another_order(pair, rng)
    assert found is not None and found not in (pair, pair[::-1])
    for text, moved in zip(pair, found, strict=True):
        assert sorted(moved.lower().strip(".").split()) == sorted(text.lower().strip(".").split())
        assert moved[0].isupper() and moved.endswith(".") and moved.count(".") == 1
    assert found[0].lower().replace("old", "young") == found[1].lower()
    assert in_another_order(("Go away.", "Go on now."), rng) is None
    assert in_another_order(("Go on now.", "Stay here now."), rng) is None


@pytest.mark.parametrize("end", ["", ".", " .", '."', "?!", ' " .', ",", "\u201d"])
def test_neither_capitals_nor_marks_say_which_words_were_moved(end: str) -> None:
    text = f'"Ann saw the old Ben again{end}'
    for seed in range(9):
        [moved] = in_another_order((text,), np.random.default_rng(seed)) or ("",)
        assert moved != text and moved.startswith('"Ann ') and moved.endswith(end)
        assert sorted(moved[: len(moved) - len(end)].split()) == sorted(text[: len(text) - len(end)].split())


def test_who_takes_the_option_with_the_fewest_capitals_shows_no_sense(toys: Callable[[str], Toy]) -> None:
    def fewest(asked: str) -> str:
        return letter_of(asked, min(listed(asked), key=lambda option: sum(c.isupper() for c in option)))

    low, high = headline(measured("crows_pairs", toys("crows_pairs"), fewest), "sense_accuracy").estimate.interval(0.95)
    assert low < 0.5 < high


def test_winogender_without_statistics_has_no_direction_and_says_what_is_missing(
    tmp_path: Path, toys: Callable[[str], Toy]
) -> None:
    toy = toys("winogender")
    (tmp_path / "all_sentences.tsv").write_bytes((Path(toy.path) / "all_sentences.tsv").read_bytes())
    found = measured("winogender", Toy(str(tmp_path), toy.good, toy.biased), honest(toy))
    gap = headline(found, "accuracy_gap").estimate
    assert isinstance(gap, Undefined) and "put occupations-stats.tsv beside" in gap.reason
    assert headline(found, "accuracy").estimate.value == 1.0
    assert judged("winogender", found)["accuracy_gap"] is not Outcome.PASS


def test_who_can_be_asked_how_likely_texts_are_is_asked_for_a_letter_only_where_that_is_said(
    toys: Callable[[str], Toy],
) -> None:
    from tests.probes.language.pair_toys import toy as likelihoods

    model = likelihoods([("The old man spoke.", "The young man spoke.")], 1.0)
    for name in TOYS:
        auto = PROBES[name](benchmarks={name: toys(name).path})
        assert not auto.asking.by_letter(model) and auto.asking.by_letter(Says(lambda asked: "A"))
        assert PROBES[name](benchmarks={}, answer_by="letter").asking.by_letter(model)
        with pytest.raises(ValueError, match="answer_by must be 'auto', 'likelihood' or 'letter', not 'number'"):
            PROBES[name](benchmarks={}, answer_by="number")


@pytest.mark.parametrize("name", TOYS)
def test_what_can_change_nothing_is_refused(name: str) -> None:
    of_letters, of_likelihoods = {"system": "system.txt"}, {"reference": "earlier"}
    with pytest.raises(ConfigError, match="^system is for letters, and answer_by is 'likelihood': leave one of"):
        PROBES[name](answer_by="likelihood", **of_letters)
    for own in (of_likelihoods,) if name == "stereoset" else (of_likelihoods, {"form": "whole"}):
        with pytest.raises(ConfigError, match=f"^{next(iter(own))} is for likelihoods, and answer_by is 'letter'"):
            PROBES[name](answer_by="letter", **own)
    for allowed in ({"answer_by": "auto"} | of_letters | of_likelihoods, {"answer_by": "letter"} | of_letters):
        assert PROBES[name](**allowed).asking.system == "system.txt"


def test_pairs_whose_writers_are_not_known_fail_and_pass_nothing(tmp_path: Path) -> None:
    toy, metric = crows(tmp_path, writers=False), JUDGED["crows_pairs"]
    wide = [c.model_copy(update={"bound": (0.35, 0.65)}) for c in load_criteria() if c.metric == metric]
    for reply, outcome in ((honest(toy), Outcome.INCONCLUSIVE), (following(toy), Outcome.FAIL)):
        found = measured("crows_pairs", toy, reply)
        result = ProbeResult(probe="crows_pairs", pillar="language", citation="", measurements=tuple(found))
        [own] = [f for f in judge([result], wide)[0] if f.criterion and f.measurement]
        assert own.outcome is outcome
        if outcome is not Outcome.FAIL:
            assert "with its column anon_writer" in own.reason


def test_files_of_which_nothing_can_be_asked_so_are_told(tmp_path: Path) -> None:
    header = ",sent_more,sent_less,stereo_antistereo,bias_type"
    (tmp_path / "crows.csv").write_text(f"{header}\n0,He ran.,She ran.,stereo,x\n")
    for side, pronoun in (("pro", "he"), ("anti", "she")):
        line = f"1 [The maker] said that [{pronoun}] was late."
        (tmp_path / f"{side}_stereotyped_type1.txt.dev").write_text(line)
    for name, path, said in (
        ("crows_pairs", tmp_path / "crows.csv", "No item has texts"),
        ("winobias", tmp_path, "1 of 1 sentences do not name just two occupations, or differ in more than a pronoun"),
    ):
        with pytest.raises(NotApplicableError, match=said):
            measured(name, Toy(str(path), {}, {}), lambda asked: "A")


def test_sentences_that_share_an_occupation_are_no_independent_evidence() -> None:
    """Each occupation moves the gap of every sentence it stands in, as the one that is meant and as the other."""
    rng, n = np.random.default_rng(4), 40
    pairs = [(a, b) for a in range(n) for b in rng.permutation(n).tolist()[:8] if a != b]
    members = [both for a, b in pairs for both in ((a, b), (b, a)) for _ in (0, 1)]
    named, other = np.asarray(members).T

    def gaps() -> np.ndarray:
        moved = rng.normal(0.0, 1.5, n)
        both = 0.5 + moved[named] + moved[other]
        chance = 1.0 / (1.0 + np.exp(-np.stack([both, -both])))
        return np.subtract(*(rng.random((2, len(members))) < chance).astype(np.float64))

    true = float(np.mean([gaps().mean() for _ in range(3_000)]))
    worlds = [np.tile(gaps()[:, None], 2) for _ in range(100)]
    missed = [
        sum(not low <= true <= high for low, high in (made(ends).bounds(0.025) for ends in worlds))
        for made in (
            lambda ends: over_members(members, ends, low=-1.0),
            lambda ends: over_clusters([own[0] for own in members], ends, low=-1.0),
        )
    ]
    # Of 100 at 5 % each, 11 or more come by chance in one run of 100. By the one that is meant alone there are more.
    assert missed[0] <= 10 < missed[1], missed


def test_few_clusters_and_more_than_half_of_the_questions_open_are_not_judged() -> None:
    assert too_open([*range(6), *range(6)], 6, "templates") == ""
    assert too_open(range(5), 0, "templates") == "5 templates are too few to judge by."
    assert too_open([0, 0, 1, 1, 2], 0, "templates") == "3 templates are too few to judge by."
    assert too_open([*range(6), *range(6)], 7, "templates").startswith("7 of 12 questions have no answer")
