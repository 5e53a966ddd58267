r"""Texts drawn by a server, compared with a reference model: the rank of each token in its distribution.

With the tokens :math:`1, 2, \dots` of a place in the order of their falling probability :math:`p` under the reference,
a drawn token :math:`x` has the rank :math:`u = \sum_{y < x} p(y) + V p(x)`, :math:`V` uniform on [0, 1]. Where the
server draws from the reference, :math:`u` is uniform whatever came before (Rosenblatt 1952; Dunn and Smyth 1996 for the
randomised one), so all of them are independent, though each token's context is made of the tokens before it.

Beside this test of any difference stands one of those that are usual: for other temperatures, and for a tail that top_k
or min_p cuts, each token counts :math:`q(x)/p(x)`, with :math:`q` what the reference would become. Its mean is 1 where
:math:`p` is drawn from, so the product, averaged over all of them, exceeds :math:`1/\alpha` with probability at most
:math:`\alpha` (Ville 1939).

With a reported log-probability :math:`\ln q(x)` of a token that was drawn from :math:`q`, :math:`(1 - p(x)/q(x))_+` has
the total variation of :math:`p` and :math:`q` as its mean, and :math:`1 - \min(p, q)/\max(p, q)` between once and twice
that: the one bounds it from below, the other from above, where a server that reports too little gains nothing.

The reference's tokens are matched with the names that a server reports by their spelling. Several tokens may be written
alike, and a server reports names. Tokens of one name are one class, whose probability is the sum of theirs; those that
have no name of their own, parts of a character, special tokens and ends, are one too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import torch

from auditor.core.errors import ModelError, NotApplicableError
from auditor.core.rows import FloatArray, IntArray
from auditor.models.chat import chat_of
from auditor.models.endpoint.server_findings import Compared, ServedText, ServedTexts
from auditor.models.language_model import NO_PROBABILITY, AuditedLanguageModel, logits_at
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import evaluating
from auditor.statistics.significance_tests import largest_mean, least_mean, p_of_uniform

NAMELESS = 0
_BROKEN = "\ufffd"
_BYTES = "bytes:"


@dataclass(frozen=True)
class Spelling:
    """``names``: of each token inside a text, "" if none; ``pieces``: the vocabulary's spelling."""

    names: tuple[str, ...]
    pieces: tuple[str, ...]
    special: frozenset[str]

    @classmethod
    def from_model(cls, reference: AuditedLanguageModel) -> Spelling:
        """The spelling of a reference's tokenizer, for all outputs of its network.

        Raises ModelError without any token.
        """
        backend: Any = reference.tokenizer.backend_tokenizer
        network: Any = reference.module
        size = int(network.get_input_embeddings().weight.shape[0])
        special = {int(i) for i in getattr(reference.tokenizer, "all_special_ids", ())} | _ends(network)
        special |= {int(i) for i, token in backend.get_added_tokens_decoder().items() if token.special}
        pieces = [backend.id_to_token(i) or "" for i in range(size)]
        known = [i for i in range(size) if pieces[i] and i not in special]
        if not known:
            raise ModelError("The reference's tokenizer has no token that text is made of.")
        # Some decoders drop a blank at the start: what a token adds to another is what it writes.
        anchor = next((i for i in known if pieces[i].isalpha()), known[0])
        before = backend.decode([anchor], skip_special_tokens=False)
        names = [""] * size
        for i, text in zip(
            known, backend.decode_batch([[anchor, i] for i in known], skip_special_tokens=False), strict=True
        ):
            if text.startswith(before) and _BROKEN not in text[len(before) :]:
                names[i] = text[len(before) :]
        return cls(tuple(names), tuple(pieces), frozenset(pieces[i] for i in special if i < size))

    @cached_property
    def classes(self) -> IntArray:
        """(n_tokens,) the class of each token by its name."""
        return _classes(self.names)

    @cached_property
    def bare_classes(self) -> IntArray:
        """(n_tokens,) the classes by names without surrounding blanks, as some servers cut whole texts."""
        return _classes([name.strip() for name in self.names])

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: int(c) for name, c in zip(self.names, self.classes, strict=True) if name}

    @cached_property
    def _by_piece(self) -> dict[str, int]:
        return {piece: int(c) for piece, c in zip(self.pieces, self.classes, strict=True) if piece}

    @cached_property
    def _bare(self) -> dict[str, int]:
        return {name.strip(): int(c) for name, c in zip(self.names, self.bare_classes, strict=True) if name.strip()}

    @cached_property
    def _name_of(self) -> dict[int, str]:
        return {int(c): name for name, c in zip(self.names, self.classes, strict=True)}

    @cached_property
    def _members(self) -> dict[int, int]:
        """The token of each class that has one only."""
        counts = np.bincount(self.classes)
        return {int(c): i for i, c in enumerate(self.classes) if c != NAMELESS and counts[c] == 1}

    def token_of(self, token_class: int) -> int | None:
        """The one token of a class; None where there are several, or they have no name."""
        return self._members.get(token_class)

    def classes_of_names(self, names: Sequence[str]) -> list[int | None]:
        """The classes of reported names, None if one is not a token of the reference.

        Names are tokens as they are written or, all of them, as the vocabulary writes them.
        """
        written = [self._class_of_name(name, self._by_name) for name in names]
        if None not in written:
            return written
        raw = [self._class_of_name(name, self._by_piece) for name in names]
        return raw if None not in raw else written

    def _class_of_name(self, name: str, table: dict[str, int]) -> int | None:
        if not name or _BROKEN in name or name in self.special or name.startswith(_BYTES):
            return NAMELESS
        return table.get(name)

    def told_bare(self, text: str) -> int | None:
        """The bare class of a text that is one token."""
        bare = text.strip()
        return NAMELESS if not bare or _BROKEN in bare or bare in self.special else self._bare.get(bare)

    def text_of_classes(self, classes: Sequence[int]) -> str:
        """The text of tokens up to the first without a name."""
        named = list(classes)
        if NAMELESS in named:
            named = named[: named.index(NAMELESS)]
        return "".join(self._name_of[c] for c in named)


def _classes(names: Sequence[str]) -> IntArray:
    number = {"": NAMELESS}
    return np.asarray([number.setdefault(name, len(number)) for name in names], np.int64)


def _ends(network: Any) -> set[int]:
    named: list[Any] = []
    for holder in ("generation_config", "config"):
        value = getattr(getattr(network, holder, None), "eos_token_id", None)
        named += value if isinstance(value, list) else [value]
    return {int(i) for i in named if i is not None}


# The chance that a distance is said to be larger than it is, and that it is said to be smaller.
FALSE_LEAST, FALSE_LARGEST = 5e-4, 0.05
_UNLIKELY = 0.95
_POWERS = np.asarray([0.8, 0.93, 1.08, 1.25, 3.0])
# What the usual samplers keep, and the share of the odds that their cut leaves to all else.
_TOP_K, _MIN_P, _LEFT = 40, 0.05, 0.05
_MOST_NAMED = 5
_Ids = tuple[int, ...]


@dataclass(frozen=True)
class _Draw:
    """One drawn class after a context; ``bare``: among the classes of names without blanks."""

    context: _Ids
    drawn: int
    bare: bool = False
    reported: bool = False
    log_probability: float | None = None


@dataclass(frozen=True)
class Place:
    """Rank of a drawn class in the reference's distribution: probability of all likelier classes, and its own.

    ``ahead``: logarithms of its probability under each usual alternative to its own.
    """

    above: float
    own: float
    ahead: FloatArray


def compare(reference: AuditedLanguageModel, served_texts: ServedTexts, rng: np.random.Generator) -> Compared:
    """Compare drawn texts with the reference's distribution.

    ``rng``: randomises the ranks, and stands for draws that did not come, so that their number tells nothing. Raises
    ModelError where the reference is none that draws texts, or its context is too short for the prompts.
    """
    if reference.objective != "causal":
        raise ModelError("A masked language model draws no texts: name the folder of a causal one with --reference.")
    spelling = Spelling.from_model(reference)
    try:
        prompts = _prompts(reference, served_texts)
    except NotApplicableError as error:
        raise ModelError(str(error)) from None
    if isinstance(prompts, str):
        return Compared(untested=prompts)
    told = _token_classes(spelling, served_texts.texts)
    lost = [name for names, classes in told for name, c in zip(names, classes, strict=True) if c is None]
    if lost:
        named = tuple(dict.fromkeys(lost))[:_MOST_NAMED]
        return Compared(unspelled=named, n_unspelled=len(lost))
    classes = [[c for c in found if c is not None] for _, found in told]
    wrong = [_misspelled(spelling, t, c) for t, c in zip(served_texts.texts, classes, strict=True)]
    if any(wrong):
        blanks = all(
            _without_blanks(spelling, t, c) for t, c, w in zip(served_texts.texts, classes, wrong, strict=True) if w
        )
        if blanks:
            return Compared(untested="The server reports tokens without their blanks, so which they are is not known.")
        return Compared(misspelled=True)
    draws = [
        draw
        for text, found in zip(served_texts.texts, classes, strict=True)
        for draw in _draws(spelling, text, found, prompts[text.prompt])
    ][: served_texts.n_tested]
    return _compare_draws(reference, spelling, draws, served_texts.n_tested, rng)


def _prompts(reference: AuditedLanguageModel, served_texts: ServedTexts) -> dict[str, _Ids] | str:
    """The tokens of each prompt as the reference reads it, or why that is not known."""
    texts = list(dict.fromkeys(text.prompt for text in served_texts.texts))
    if served_texts.route == "completions":
        return dict(zip(texts, (e.ids for e in reference.as_sent().encode(texts)), strict=True))
    chat = chat_of(reference)
    if chat is None:
        return "Only a chat answers, and the reference has no chat template by which it would be asked the same."
    if "strftime_now" in chat.template:
        return "Only a chat answers, and the reference's template writes the day, which a server may take elsewhere."
    return dict(
        zip(
            texts,
            (e.ids for e in reference.with_prefix("").encode([chat.render_prompt(t) for t in texts])),
            strict=True,
        )
    )


def _token_classes(spelling: Spelling, texts: Sequence[ServedText]) -> list[tuple[tuple[str, ...], list[int | None]]]:
    """The names of each text with their classes; how names are written is told by all of them."""
    flat = iter(spelling.classes_of_names([name for text in texts if text.reported for name in text.tokens]))
    return [
        (text.tokens, [next(flat) for _ in text.tokens])
        if text.reported
        else ((text.text,), [spelling.told_bare(text.text)])
        for text in texts
    ]


def _misspelled(spelling: Spelling, text: ServedText, classes: Sequence[int]) -> bool:
    return text.reported and not _fits(
        text.text.strip(), spelling.text_of_classes(classes).strip(), NAMELESS in classes
    )


def _without_blanks(spelling: Spelling, text: ServedText, classes: Sequence[int]) -> bool:
    written = "".join(spelling.text_of_classes(classes).split())
    return _fits("".join(text.text.split()), written, NAMELESS in classes)


def _fits(text: str, reference_text: str, goes_on: bool) -> bool:
    return text.startswith(reference_text) if goes_on else text == reference_text


def _draws(spelling: Spelling, text: ServedText, classes: Sequence[int], prompt: _Ids) -> Iterator[_Draw]:
    """The draws of a text, up to one after which the context is not known: which one that is, is known when it came."""
    if not text.reported:
        yield _Draw(prompt, classes[0], bare=True)
        return
    context = prompt
    for which, value in zip(classes, text.log_probabilities, strict=True):
        token = spelling.token_of(which)
        # Of several tokens together one number is reported, of which is not said.
        yield _Draw(context, which, reported=True, log_probability=None if token is None else value)
        if token is None:
            return
        context = (*context, token)
    if text.ended:
        yield _Draw(context, NAMELESS, reported=True)


def _compare_draws(
    reference: AuditedLanguageModel, spelling: Spelling, draws: Sequence[_Draw], n: int, rng: np.random.Generator
) -> Compared:
    placed = _places(reference, spelling, draws)
    own = [place.own for place in placed]
    # Draws that did not come are put in: which texts end early must not decide how many are tested.
    drawn = [place.above + v * place.own for place, v in zip(placed, rng.random(len(draws)), strict=True)]
    ranks = np.concatenate([drawn, rng.random(n - len(draws))])
    reported = [i for i, draw in enumerate(draws) if draw.reported]
    apart = [_distance_bounds(own[i], draws[i].log_probability) for i in reported]
    return Compared(
        n=len(draws),
        p=min(1.0, 2.0 * min(p_of_uniform(ranks), p_of_usual(placed))),
        unlikely=float((ranks[: len(draws)] > _UNLIKELY).mean()) if draws else 0.0,
        n_reported=len(reported),
        nearest=least_mean([a for a, _ in apart], FALSE_LEAST),
        farthest=largest_mean([b for _, b in apart], FALSE_LARGEST),
    )


def p_of_usual(placed: Sequence[Place]) -> float:
    """p-value of "drawn from the reference" against the usual alternatives: one over the e-value."""
    if not placed:
        return 1.0
    logs = np.sum([place.ahead for place in placed], axis=0)
    return float(min(1.0, np.exp(math.log(len(logs)) - scipy.special.logsumexp(logs))))


def _distance_bounds(probability: float, log_reported: float | None) -> tuple[float, float]:
    """From below and above how far apart both distributions are at a drawn token."""
    if log_reported is None:
        return 0.0, 1.0
    if probability <= 0.0:
        return 1.0, 1.0
    ahead = log_reported - math.log(probability)
    return max(-math.expm1(-ahead), 0.0) if ahead < 700.0 else 1.0, -math.expm1(-abs(ahead))


def _places(reference: AuditedLanguageModel, spelling: Spelling, draws: Sequence[_Draw]) -> list[Place]:
    found: list[Place | None] = [None] * len(draws)
    after: dict[_Ids, list[int]] = {}
    for i, draw in enumerate(draws):
        after.setdefault(draw.context, []).append(i)
    with without_gradients(), evaluating(reference.module):
        for whole, lengths in _covering(list(after)):
            rows = _next_token(reference, whole, lengths)
            for length, row in zip(lengths, rows, strict=True):
                for bare in (False, True):
                    here = [i for i in after[whole[:length]] if draws[i].bare is bare]
                    if not here:
                        continue
                    classes = spelling.bare_classes if bare else spelling.classes
                    placing = Placing(np.bincount(classes, weights=row))
                    for i in here:
                        found[i] = placing.place_of(draws[i].drawn)
    return [place for place in found if place is not None]


class Placing:
    """The (n_classes,) probabilities at one position, and their changes under the usual alternatives."""

    def __init__(self, probabilities: npt.NDArray[Any]) -> None:
        self.probabilities = probabilities
        logs = np.log(probabilities[probabilities > 0.0])
        self.scales = np.log([np.exp(power * logs).sum() for power in _POWERS])
        k = min(_TOP_K, len(probabilities))
        cuts = (np.partition(probabilities, -k)[-k], _MIN_P * probabilities.max())
        self.cuts = [(cut, float(probabilities[probabilities >= cut].sum())) for cut in cuts]

    def place_of(self, token_class: int) -> Place:
        """The rank of a class."""
        own = float(self.probabilities[token_class])
        likelier = self.probabilities > own
        # Of two that are as likely the one that comes first is likelier: any order will do that is fixed.
        likelier[:token_class] |= self.probabilities[:token_class] == own
        tempered = (_POWERS - 1.0) * math.log(own) - self.scales if own > 0.0 else np.zeros(len(_POWERS))
        kept = [math.log((1.0 if own >= cut else _LEFT) / (mass + _LEFT * (1.0 - mass))) for cut, mass in self.cuts]
        return Place(float(self.probabilities[likelier].sum()), own, np.concatenate([tempered, kept]))


def _covering(contexts: Sequence[_Ids]) -> Iterator[tuple[_Ids, list[int]]]:
    """Contexts that no other one goes on from, each with the lengths of all that it covers, rising."""
    whole: _Ids | None = None
    lengths: list[int] = []
    # In falling order what goes on from a context comes directly before it.
    for context in sorted(contexts, reverse=True):
        if whole is not None and whole[: len(context)] == context:
            lengths.append(len(context))
            continue
        if whole is not None:
            yield whole, lengths[::-1]
        whole, lengths = context, [len(context)]
    if whole is not None:
        yield whole, lengths[::-1]


def _next_token(reference: AuditedLanguageModel, ids: _Ids, lengths: Sequence[int]) -> FloatArray:
    """(n_lengths, n_tokens) probabilities of the token after so many of a text."""
    if reference.context is not None and len(ids) > reference.context:
        raise ModelError(f"The reference's context of {reference.context:,} tokens is too short for what was asked.")
    inputs = {"input_ids": torch.tensor([list(ids)], device=reference.device)}
    places = torch.tensor([[0, length - 1] for length in lengths], device=reference.device)
    logits = logits_at(reference.module, {**inputs, "use_cache": False}, places)
    found: FloatArray = torch.softmax(logits.double(), dim=-1).cpu().numpy()
    if np.isnan(found).any():
        raise ModelError(NO_PROBABILITY)
    return found
