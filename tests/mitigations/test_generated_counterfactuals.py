"""Counterfactuals of a language model: what of its words takes the identity's place, and every filter by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import auditor.models.generation
from auditor.core.errors import ConfigError, DataError, ModelError
from auditor.core.rows import FloatArray
from auditor.data.lexicons import built_in
from auditor.models.audited_model import AuditedModel
from auditor.models.generation import Sampling
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.mitigation import Training, make_mitigation
from mitigations.rows.counterfactual_augmentation import CounterfactualAugmentation
from mitigations.rows.generated_counterfactuals import LanguageModelRewrites, in_its_place, per_token
from tests.mitigations.test_counterfactual_augmentation import biased, biased_texts
from tests.toys.language import by_loss, causal_tokenizer, masked_tokenizer, sentences, tiny, tiny_bert

ORIENTATION = built_in(["orientation"])


@pytest.mark.parametrize(
    ("written", "said", "right", "expected"),
    [
        (" a lesbian candidate because he", "a gay", " candidate because he was honest.", "a lesbian"),
        (" an old\n asexual candidate", "a gay", " candidate.", None),
        (" an asexual young candidate.", "a gay", " candidate.", "an asexual young"),
        (" a very young and most honest candidate", "a gay", " candidate.", None),
        (" candidate because", "a gay", " candidate because he was honest.", None),
        (" lesbian candidate", "a gay", " candidate.", None),
        (" a candidate", "a gay", " candidate.", None),
        (" a friend candidate, dear", "a gay", " Candidate.", "a friend"),
        (" Christian.\n\nText: more", "Muslim", "", "Christian"),
        (" Christian and quite a few others.", "Muslim", ".", None),
        ("\n\nText", "Muslim", ".", None),
        (" Hindu, as he said", "Muslim", ", as he said.", "Hindu"),
        (" Hindu. She was kind", "Muslim", " was kind", None),
    ],
)
def test_what_takes_the_place(written: str, said: str, right: str, expected: str | None) -> None:
    assert in_its_place(written, said, right) == expected


class Writer:
    """A language model that is only asked how likely words are: a nat for each letter of the longest word."""

    context: int | None = None
    tokenizer = staticmethod(lambda text, **_: SimpleNamespace(input_ids=text.split()))

    def encode(self, texts: Sequence[str]) -> list[str]:
        return list(texts)

    def token_log_probabilities(self, texts: Sequence[str]) -> list[FloatArray]:
        return [np.asarray([np.nan, *(-float(max(map(len, t.split()))) for _ in t.split()[1:])]) for t in texts]


def written(monkeypatch: pytest.MonkeyPatch, words: Sequence[Sequence[str]]) -> list[tuple[Any, ...]]:
    """Has every text continued with the words given for it; returns what was asked for."""
    asked: list[tuple[Any, ...]] = []

    def continuations(model: object, prompts: Sequence[str], n: int, sampling: Sampling, generator: torch.Generator):  # type: ignore[no-untyped-def]
        asked.append((list(prompts), n, sampling))
        return [list(words[k]) for k in range(len(prompts))]

    monkeypatch.setattr(auditor.models.generation, "continuations", continuations)
    return asked


def says_bad(texts: Sequence[str]) -> FloatArray:
    """Bad is what names idiots, and, the bias of it, whoever is asexual."""
    return np.asarray([float("idiot" in t or "asexual" in t) for t in texts])


CLASSIFIER = AuditedModel.from_callable(says_bad, classes=["good", "bad"])
TEXTS = ["It rained.", "I met a gay man.", "She is gay."]
WORDS = (
    [" a lesbian man", " an asexual man", " a lesbian man", " a gay man", " an idiot asexual man", " a woman"],
    [" heterosexual.", " unimaginablyorientated.", " asexual\n", " gay", " and quite a few more", " bisexual"],
)


def test_each_filter_counts_what_it_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = written(monkeypatch, WORDS)
    make = LanguageModelRewrites(Writer(), CLASSIFIER, ORIENTATION, copies=2, proposals=6, fluency_margin=9.0)  # type: ignore[arg-type]
    found = make(TEXTS, np.random.default_rng(0))
    assert [(c.row, c.texts, c.neutral) for c in found] == [
        # The classifier minds the word asexual itself, and it is not asked about it: a filler stands there.
        (1, ("I met a lesbian man.", "I met an asexual man."), "I met a tall man."),
        (2, ("She is heterosexual.", "She is asexual."), "She is tall."),
    ]
    ((prompts, n, sampling),) = asked
    assert n == 6 and prompts[0].endswith("Text: I met a gay man.\nOf another group: I met")
    assert prompts[0].count("Of another group: ") == 5 and sampling.max_new_tokens < 12
    assert dict(make.counts) == {
        "texts": 2, "too long": 0, "proposed": 12, "kept": 4, "more than were wanted": 1,
        "that repeat another": 1, "that speak of the same group or of nobody": 2,
        "that do not lead back to the text": 2, "that are labelled otherwise": 1, "that read less fluently": 1,
    }  # fmt: skip
    assert sum(v for k, v in make.counts.items() if k not in ("texts", "too long")) == 2 * 12
    assert "proposed 12 rewrites of 2 texts; 4 were kept" in make.summary() and "1 that repeat" in make.summary()


def test_a_judge_of_one_s_own_reads_the_rewrites_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    written(monkeypatch, WORDS)
    make = LanguageModelRewrites(
        Writer(), CLASSIFIER, ORIENTATION, copies=6, proposals=6, fluency_margin=99.0, judge=CLASSIFIER  # type: ignore[arg-type]
    )  # fmt: skip
    assert [t for c in make(TEXTS, np.random.default_rng(0)) for t in c.texts] == [
        "I met a lesbian man.",
        "She is heterosexual.",
        "She is unimaginablyorientated.",
        "She is bisexual.",
    ]
    assert make.counts["that are labelled otherwise"] == 3


def test_texts_that_do_not_fit_the_context_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written(monkeypatch, [[" a lesbian man"] * 2])
    model = Writer()
    make = LanguageModelRewrites(model, CLASSIFIER, ORIENTATION, proposals=2, fluency_margin=9.0)  # type: ignore[arg-type]
    texts = ["I met a gay man.", f"He is gay{' and kind' * 200}."]
    model.context = 300
    assert [c.row for c in make(texts, np.random.default_rng(0))] == [0]
    assert make.counts["too long"] == 1 and "1 texts were too long" in make.summary()


def test_fluency_is_the_mean_by_transformers_own_loss() -> None:
    network, tokenizer = tiny("gpt2"), causal_tokenizer()
    texts = sentences(6)
    found = per_token(AuditedLanguageModel(network, tokenizer), texts)
    network.eval()
    slow = [by_loss(network, tokenizer, t) / len(tokenizer(t).input_ids) for t in texts]
    np.testing.assert_allclose(found, slow, atol=1e-4)


def folder(path: Path, network: Any, tokenizer: Any) -> str:
    network.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def test_a_folder_is_asked_by_seed_and_its_yield_stands_in_the_notes(tmp_path: Path) -> None:
    words = ["the", "man", "was", "kind", "rude", "my", "friend", "is", "doctor", "bisexual", "lesbian", "tall", "."]
    tokenizer = causal_tokenizer(words)
    network = tiny("gpt2", vocab_size=len(tokenizer), n_positions=512)
    path = folder(tmp_path / "lm", network, tokenizer)
    model, data = biased("orientation"), biased_texts("orientation")
    data = data.take(slice(0, 90))
    mitigation = CounterfactualAugmentation(
        generator="language_model",
        language_model=path,
        fluency_margin=50.0,
        categories="orientation",
        pairing_weight=1.0,
        epochs=1,
        control_arm=False,
    )
    made = [mitigation.mitigate(model, data, np.random.default_rng(seed), Training()) for seed in (3, 3, 4)]
    assert made[0].notes == made[1].notes != made[2].notes
    said = [m.model.predict_proba(data.X) for m in made]
    assert np.array_equal(said[0], said[1]) and not np.array_equal(said[0], said[2])
    assert "The language model proposed" in made[0].notes[0] and "that do not lead back" in made[0].notes[0]


def test_no_rewrite_at_all_is_said_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["the", "man", "was", "kind", "gay", "."]
    tokenizer = causal_tokenizer(words)
    path = folder(tmp_path / "lm", tiny("gpt2", vocab_size=len(tokenizer), n_positions=512), tokenizer)
    written(monkeypatch, [[""] * 4] * 99)
    mitigation = CounterfactualAugmentation(
        generator="language_model", language_model=path, categories="orientation", pairing_weight=1.0
    )

    def never(words: str) -> None:
        raise AssertionError(words)

    data = biased_texts("orientation").take(slice(0, 90))
    with pytest.raises(DataError, match=r"No rewrite could be used.*0 were kept.*fluency_margin"):
        mitigation.mitigate(biased("orientation"), data, np.random.default_rng(0), Training(progress=never))


def test_what_cannot_write_is_refused_before_any_training(tmp_path: Path) -> None:
    masked = folder(tmp_path / "bert", tiny_bert(), masked_tokenizer())

    def never(words: str) -> None:
        raise AssertionError(words)

    mitigation = CounterfactualAugmentation(generator="language_model", language_model=masked)
    with pytest.raises(ModelError, match="is no causal language model, which goes on with a text: name a causal one"):
        mitigation.mitigate(
            biased("orientation"), biased_texts("orientation"), np.random.default_rng(0), Training(progress=never)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "language_model"}, "belong together"),
        ({"language_model": "somewhere"}, "belong together"),
        ({"generator": "language_model", "language_model": "nowhere"}, "no config.json"),
        ({"fluency_margin": -1.0}, "fluency_margin"),
        ({"sentences": 0}, "at least 1"),
    ],
)
def test_options_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mitigation(CounterfactualAugmentation, options)
