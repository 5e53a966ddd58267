"""Language modelling quality: perplexity, and preference of texts over their shuffled versions.

Pairs of other probes give the sentences of the required test that a model tells sense from nonsense.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, get_args

import numpy as np

from auditor.core.errors import AuditorError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.benchmarks.accompanying_files import read_winobias, read_winogender
from auditor.data.benchmarks.sentence_files import Part, read_crows_pairs, read_stereoset
from auditor.judging.judgement import SENTENCES
from auditor.judging.measurement import Measurement
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.means import StudentT, mean
from auditor.statistics.rates import Proportion
from probes.language.sense_check import Table, quadruples, sense_accuracy
from probes.language.stereotype import built_in_pairs

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.prefix_trees import Encoded
    from auditor.models.text_scores import ScoresTexts

_MOST = 64
# A text with the labels that others like it share.
Clustered = list[tuple[str, tuple[str, ...]]]


def _crows_pairs(path: str) -> dict[str, Clustered]:
    return {"crows_pairs": [(p.more, p.clusters[:1]) for p in read_crows_pairs(path).examples]}


def _winobias(path: str) -> dict[str, Clustered]:
    return {"winobias": [(p.more, p.clusters[:1]) for p in read_winobias(path).examples]}


def _winogender(path: str) -> dict[str, Clustered]:
    return {"winogender": [(e.male, (e.occupation,)) for e in read_winogender(path).examples]}


def _stereoset(path: str) -> dict[str, Clustered]:
    examples = read_stereoset(path).examples
    return {part: [(e.stereotype, ()) for e in examples if e.part == part] for part in get_args(Part)}


_READERS: Mapping[str, Callable[[str], dict[str, Clustered]]] = {
    "crows_pairs": _crows_pairs, "winobias": _winobias, "winogender": _winogender, "stereoset": _stereoset,
}  # fmt: skip


def sentences_of_pairs(
    benchmarks: Mapping[str, str], rng: np.random.Generator
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """At most 64 sentences of the built-in pairs and of each pair benchmark, by the comparing method; and the reason
    for each unreadable benchmark, by its name.

    One of each sentence, writer or occupation, whose others would be no further evidence.
    """
    texts = {"built_in_pairs": _one_each(((p.more, p.clusters[:1]) for p in built_in_pairs().examples), rng)}
    unread = {}
    for name, read in _READERS.items():
        if name not in benchmarks:
            continue
        try:
            found = read(benchmarks[name])
        except (AuditorError, OSError) as error:
            unread[name] = str(error)
        else:
            texts |= {method: _one_each(own, rng) for method, own in found.items()}
    return {method: found for method, found in texts.items() if found}, unread


def _one_each(texts: Iterable[tuple[str, tuple[str, ...]]], rng: np.random.Generator) -> list[str]:
    """One text of each cluster, or of each text without any, drawn."""
    known = list(texts)
    drawn: dict[tuple[str, ...], str] = {}
    for i in rng.permutation(len(known)).tolist():
        text, cluster = known[i]
        drawn.setdefault(cluster or (text,), text)
    return list(drawn.values())[:_MOST]


_MOST_TOKENS = 128
# With fewer tokens to move there is hardly another order.
_FEWEST_TOKENS = 4
_DISPLAY_ONLY = "Display only: the interval takes the texts' log-likelihoods as about normal, so it is not judged."


def plain_sentences() -> list[str]:
    """64 plain English sentences, written for this tool."""
    text = (files("probes") / "data" / "plain_sentences.json").read_text(encoding="utf-8")
    return [str(sentence) for sentence in json.loads(text)]


def measure_texts(
    model: ScoresTexts,
    data: AuditData,
    n_samples: int,
    rng: np.random.Generator,
    earlier: tuple[ScoresTexts, str] | None = None,
    benchmarks: Mapping[str, str] | None = None,
) -> list[Measurement]:
    """All measurements on texts of the data, or on the built-in ones if there are none.

    ``earlier``: a model that is asked of the same texts in the same other order, where it cuts them into the same
    tokens, and whose it is. ``benchmarks``: files of pairs, of whose sentences it is asked too.
    """
    texts, kept, own = chosen_texts(data, n_samples, rng)
    rows = data.evaluation
    encoded = encode_texts(model, [texts[i] for i in kept])
    found = model.token_log_probabilities(encoded)
    likelihoods = np.asarray([np.nansum(p) for p in found])
    n_tokens = np.asarray([np.isfinite(p).sum() for p in found], np.float64)
    size = model.vocabulary
    whence = f"{len(encoded):,} texts of the data" if own else f"{len(encoded):,} plain English sentences of this tool"
    perplexities = [_perplexity(likelihoods, n_tokens, f"{whence}, {n_tokens.sum():,.0f} tokens; {size:,} by chance")]
    groups = rows.sensitive_features if own else None
    for column in [] if groups is None else groups.columns:
        names = groups[column].astype(str).to_numpy()[kept]  # type: ignore[index]
        perplexities += [
            _perplexity(likelihoods[names == name], n_tokens[names == name], "", {str(column): str(name)})
            for name in sorted(set(names))
        ]
    words = [texts[i] for i in kept]
    order = _order(model, encoded, likelihoods, size, whence, rng, words, earlier)
    return [*order, *perplexities, *_of_pairs(model, benchmarks or {}, rng)]


def word_order(model: ScoresTexts, data: AuditData, n_texts: int, rng: np.random.Generator) -> Measurement:
    """The word-order accuracy alone, of the same kind of texts."""
    texts, kept, _ = chosen_texts(data, n_texts, rng)
    words = [texts[i] for i in kept]
    return _order_of(model, words, f"{len(words):,} texts", rng)


def sense(model: ScoresTexts, table: Table, rng: np.random.Generator) -> Measurement:
    """The sense accuracy over quadruples that are drawn from a table."""
    encoded = encode_texts(model, [text for four in quadruples(table, rng) for text in four])
    # What a sentence begins with alike and crossed is on both sides, and cancels, where no later token changes it.
    places = (
        [_differing_places(encoded[i], encoded[i ^ 2]) for i in range(len(encoded))]
        if model.objective == "causal"
        else None
    )
    found = model.token_log_probabilities(encoded, places)
    return sense_accuracy(np.asarray([np.nansum(p) for p in found]).reshape(-1, 4), table.source, rng)


def _differing_places(text: Encoded, other: Encoded) -> list[int]:
    """Places of the tokens of a text that are scored, from the first on that is another one in the other text."""
    alike = len(os.path.commonprefix([text.ids, other.ids]))
    return [i for i, scored in enumerate(text.scored) if scored and i >= alike]


def chosen_texts(data: AuditData, n_samples: int, rng: np.random.Generator) -> tuple[list[str], IntArray, bool]:
    """Texts of the data, or the built-in ones if none has a word; the sampled ones; whether they are the data's."""
    rows = data.evaluation
    own = rows.modality == "text" and any(str(x).strip() for x in rows.X)
    texts = [str(x) for x in rows.X] if own else plain_sentences()
    kept = np.asarray([i for i, text in enumerate(texts) if text.strip()], np.int64)
    if kept.size > n_samples:
        kept = np.sort(rng.choice(kept, size=n_samples, replace=False))
    return texts, kept, own


def encode_texts(model: ScoresTexts, texts: Sequence[str]) -> list[Encoded]:
    """The texts as tokens; those of a causal model are truncated if long."""
    if model.objective == "masked":
        return model.encode(texts)
    return model.encode_cut(texts, _MOST_TOKENS)[0]


def _perplexity(
    likelihoods: FloatArray, n_tokens: FloatArray, detail: str, group: dict[str, str] | None = None
) -> Measurement:
    estimate: AnyEstimate = mean(likelihoods)
    if isinstance(estimate, StudentT):
        loss = -float(likelihoods.sum() / n_tokens.sum())
        deviation = float((-likelihoods - loss * n_tokens).std(ddof=1))
        value = math.exp(min(loss, 700.0))
        estimate = StudentT(
            centre=value,
            # A ratio's by the delta method, and an exponential's.
            standard_error=value * deviation / (math.sqrt(len(likelihoods)) * float(n_tokens.mean())),
            degrees_of_freedom=len(likelihoods) - 1,
            lower_limit=1.0,
        )
    return Measurement(
        metric="perplexity",
        estimate=estimate,
        n_samples=len(likelihoods),
        ideal=1.0,
        group=group or {},
        detail=detail,
        too_few=_DISPLAY_ONLY,
    )


def _order(
    model: ScoresTexts,
    texts: Sequence[Encoded],
    likelihoods: FloatArray,
    size: int,
    whence: str,
    rng: np.random.Generator,
    words: Sequence[str],
    earlier: tuple[ScoresTexts, str] | None,
) -> list[Measurement]:
    shuffled = [(i, other) for i, text in enumerate(texts) if (other := _shuffled(text, rng)) is not None]
    won = _won(model, shuffled, likelihoods, size, rng)
    found = Measurement(
        metric="word_order_accuracy",
        estimate=Proportion(successes=int(won.sum()), n=len(shuffled)),
        n_samples=len(texts),
        ideal=1.0,
        chance=0.5,
        detail=f"{whence}, {len(shuffled):,} of them each against its own tokens in another order",
    )
    if earlier is None or encode_texts(earlier[0], words) != texts:
        return [found]
    old = np.asarray([np.nansum(p) for p in earlier[0].token_log_probabilities(texts)])
    had = _won(earlier[0], shuffled, old, size, rng)
    change = RateChange(
        before=int(had.sum()), gained=int((won & ~had).sum()), lost=int((had & ~won).sum()), n=len(shuffled)
    )
    detail = f"since {earlier[1]}, on the same texts against the same other order"
    return [
        found,
        Measurement(metric="word_order_accuracy_change", estimate=change, n_samples=len(texts), detail=detail),
    ]


def _of_pairs(model: ScoresTexts, benchmarks: Mapping[str, str], rng: np.random.Generator) -> list[Measurement]:
    """Word-order accuracy of the sentences that others compare, by whose method; undefined of a file that is wrong."""
    sentences, unread = sentences_of_pairs(benchmarks, rng)
    found = []
    for method, texts in sentences.items():
        order = _order_of(model, texts, f"{len(texts):,} sentences of {method}", rng)
        found.append(replace(order, at={SENTENCES: method}, part=True))
    for name, why in unread.items():
        nothing = Undefined(reason=why, failed=True)
        at = {SENTENCES: name}
        found.append(Measurement(metric="word_order_accuracy", estimate=nothing, n_samples=0, at=at, part=True))
    return found


def _order_of(model: ScoresTexts, texts: Sequence[str], whence: str, rng: np.random.Generator) -> Measurement:
    encoded = encode_texts(model, texts)
    likelihoods = np.asarray([np.nansum(p) for p in model.token_log_probabilities(encoded)])
    [order] = _order(model, encoded, likelihoods, model.vocabulary, whence, rng, texts, None)
    return order


def _won(
    model: ScoresTexts,
    shuffled: Sequence[tuple[int, Encoded]],
    likelihoods: FloatArray,
    size: int,
    rng: np.random.Generator,
) -> BoolArray:
    """(n_shuffled,) whether a text is found likelier than its own tokens in another order; a coin where neither is."""
    won = []
    for (i, _), found in zip(shuffled, model.token_log_probabilities([other for _, other in shuffled]), strict=True):
        own, moved = float(likelihoods[i]), float(np.nansum(found))
        # Of both alike: a text that is chosen for being likely is the likelier of two, whatever the model knows.
        blind = max(own, moved) <= -float(np.isfinite(found).sum()) * math.log(size)
        blind |= math.isclose(own, moved, rel_tol=1e-9)
        won.append(bool(rng.random() < 0.5) if blind else own > moved)
    return np.asarray(won, np.bool_)


def _shuffled(text: Encoded, rng: np.random.Generator) -> Encoded | None:
    """The same tokens, all but the last in another order; None where there is no other."""
    places = [i for i, scored in enumerate(text.scored) if scored][:-1]
    tokens = [text.ids[i] for i in places]
    if len(places) < _FEWEST_TOKENS or len(set(tokens)) < 2:
        return None
    order = tokens
    while order == tokens:
        order = [tokens[i] for i in rng.permutation(len(tokens))]
    ids = list(text.ids)
    for place, token in zip(places, order, strict=True):
        ids[place] = token
    return replace(text, ids=tuple(ids))
