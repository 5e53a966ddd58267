"""Sense is what no word and no order of words gives away; and whoever lacks it passes nothing of what takes it."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import ConfigError
from auditor.core.rows import FloatArray
from auditor.judging.judgement import SENSE, SENTENCES
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.prefix_trees import Encoded
from auditor.run.run_audit import no_data
from auditor.statistics.rates import Proportion
from probes.language.sense_check import quadruples, read_sense, sense_accuracy
from probes.performance import language_performance
from probes.performance.performance import Performance
from tests.probes.language.pair_toys import sense_texts, split, teach_sense, toy
from tests.quantifiers import all_of, none_of
from tests.toys.language import causal_tokenizer, tiny

TABLE = read_sense()


def drawn(seed: int = 0) -> list[tuple[str, str, str, str]]:
    return quadruples(TABLE, np.random.default_rng(seed))


def share(scores: FloatArray, seed: int = 0) -> float:
    return sense_accuracy(scores, "a test", np.random.default_rng(seed)).estimate.value


def test_no_pair_gives_itself_away() -> None:
    pairs = [pair for family in TABLE.families for pair in family.pairs]
    assert len(set(pairs)) == len(pairs) == 264
    for first, second in pairs:
        own, others = (re.findall("[a-z]{4,}", text.lower()) for text in (first, second))
        assert not {w[:4] for w in own} & {w[:4] for w in others}, (first, second)
    gaps = [re.split(r"\{\}", frame)[1].split() for family in TABLE.families for frame in family.frames]
    assert all_of(len([word for word in gap if word != ","]) >= 4 for gap in gaps)


def test_a_quadruple_has_the_same_words_on_both_sides_and_shares_no_pair_with_another() -> None:
    found = drawn()
    assert len(found) == 100 and drawn(1) != found == drawn()
    assert all_of(Counter((f"{a} {b}").split()) == Counter((f"{c} {d}").split()) for a, b, c, d in found)
    true = [text for four in found for text in four[:2]]
    assert len(set(true)) == 200
    known = {frame.format(*pair) for family in TABLE.families for frame in family.frames for pair in family.pairs}
    assert set(true) <= known and none_of(text in known for four in found for text in four[2:])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_which_words_follow_which_says_nothing_to_whoever_learned_every_true_sentence(n: int) -> None:
    known: Counter[tuple[str, ...]] = Counter()
    for family in TABLE.families:
        for frame in family.frames:
            for pair in family.pairs:
                known.update(grams(frame.format(*pair), n))
    scores = [[sum(math.log(known[g] + 0.1) for g in grams(text, n)) for text in four] for four in drawn()]
    found = sense_accuracy(np.asarray(scores), "a test", np.random.default_rng(0))
    assert "100 ties" in found.detail


def grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = ["<s>"] * (n - 1) + split(text)
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def test_sense_is_shown_by_who_knows_it_and_a_coin_by_who_does_not() -> None:
    scores = np.tile([-3.0, -4.0, -5.0, -6.0], (100, 1))
    assert share(scores) == 1.0 and share(scores[:, ::-1]) == 0.0
    assert share(np.full((100, 4), -3.0)) not in (0.0, 1.0)
    random = AuditedLanguageModel(tiny("llama", 0, vocab_size=2000), causal_tokenizer(words()))
    found = language_performance.sense(random, TABLE, np.random.default_rng(0)).estimate
    assert found.lower(0.025) < 0.5 < found.upper(0.025)


@pytest.mark.parametrize("masked", [False, True])
def test_what_both_sides_begin_with_cancels_and_is_asked_of_masked_models_alone(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later word changes how likely an earlier one is only where both are seen."""
    network, tokenizer = tiny("llama", 0, vocab_size=2000), causal_tokenizer(words())
    model: Any = AuditedLanguageModel(network, tokenizer)
    reader = AuditedLanguageModel(network, tokenizer)
    whole, asked = model.token_log_probabilities, []

    def seen(texts: list[Encoded], places: list[list[int]] | None = None) -> list[FloatArray]:
        asked.append((texts, places))
        return [np.zeros(len(t.ids)) for t in texts] if masked else whole(texts, places)

    monkeypatch.setattr(model, "token_log_probabilities", seen)
    monkeypatch.setattr(model, "objective", "masked" if masked else "causal")
    monkeypatch.setattr(language_performance, "encode_texts", lambda _, texts: reader.encode_cut(texts, 128)[0])
    monkeypatch.setattr(language_performance, "sense_accuracy", lambda scores, *_: scores)
    scores: Any = language_performance.sense(model, TABLE, rng())
    [(texts, places)] = asked
    if masked:
        assert places is None
        return
    monkeypatch.undo()
    every = np.asarray([np.nansum(p) for p in whole(texts)]).reshape(-1, 4)
    signs = np.asarray([1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(scores @ signs, every @ signs, atol=1e-3)
    assert np.abs(scores).sum() < 0.7 * np.abs(every).sum()


def words() -> list[str]:
    return sorted({word for text in sense_texts() for word in split(text)})


def test_what_is_measured_and_by_whose_table(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    pairs = '[["fish", "swam"], ["eagle", "flew"]]'
    own.write_text(f'[[families]]\nframes = ["The {{}} is the one that {{}}."]\npairs = {pairs}')
    model = toy([(text, text) for text in [*sense_texts(), "The fish is the one that swam .", "eagle flew"]], 0.0)
    teach_sense(model)
    found = {}
    for path in (None, str(own)):
        [sense] = [m for m in Performance(sense=path).measure(model, no_data(), rng()) if m.metric == "sense_accuracy"]
        assert sense.at == {SENTENCES: SENSE} and sense.chance == 0.5 and sense.part
        found[path] = sense
    assert isinstance(found[None].estimate, Proportion) and found[None].estimate.lower(0.025) > 0.9
    assert "table of this tool, sha256" in found[None].detail and "own.toml, sha256" in found[str(own)].detail
    assert found[str(own)].n_samples == 1


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("families = 3", "needs \\[\\[families\\]\\]"),
        ("families = []", "has no families"),
        ("= 3", "cannot be read: .*line 1"),
        ("a=" + "[" * 5_000, "cannot be read: it is nested too deeply"),
        (" " * (1 << 20) + " ", "has 1,048,577 bytes, more than 1,048,576"),
        ('[[families]]\nframes = ["one {} gap"]\npairs = [["a", "b"], ["c", "d"]]', "a frame without two gaps"),
        ('[[families]]\nframes = ["{} } {}"]\npairs = [["a", "b"], ["c", "d"]]', "a frame without two gaps"),
        ('[[families]]\nframes = ["{} {0} {}"]\npairs = [["a", "b"], ["c", "d"]]', "a frame without two gaps"),
        ('[[families]]\nframes = ["{} {}"]\npairs = [["a", "b"], ["a", "d"]]', "one that stands twice"),
    ],
)
def test_a_table_that_is_none_is_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        Performance(sense=str(tmp_path / "t.toml"))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, said in (("fifo", "not a regular file"), ("zero", "not a regular file"), ("absent", "No such file")):
        with pytest.raises(ConfigError, match=f"'{name}'.*{said}"):
            read_sense(str(tmp_path / name))
    (tmp_path / "own.toml").write_text('[[families]]\nframes = ["{} {}"]\npairs = [["a", "b"], ["c", "d"]]')
    (tmp_path / "link.toml").symlink_to("own.toml")
    assert read_sense(str(tmp_path / "link.toml")).source.startswith("link.toml, sha256")
