"""Counterfactuals from a language model, kept only if they say the same about somebody else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import FloatArray, IntArray
from auditor.data.lexicons import Lexicon, built_in, templates
from auditor.data.swaps import Mention, Swapper, article_of
from auditor.run.option_parsers import check_not_negative
from mitigations.rows.counterfactual_rows import Counterfactuals, filler_of

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel

REASONS = (
    "that repeat another",
    "that speak of the same group or of nobody",
    "that do not lead back to the text",
    "that are labelled otherwise",
    "that read less fluently",
)
_REPEATED, _SAME, _STRAYED, _LABEL, _FLUENCY = REASONS
_SPARE = "more than were wanted"
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ARTICLE = re.compile(r"(?<![\w'’-])an?\s+$", re.IGNORECASE)
_ENDS = re.compile(r"[^\w\s'’-]|\n")
_SHOTS = 4
_EXTRA_TOKENS = 6
_EXTRA_WORDS = 2


@dataclass(frozen=True)
class _Named:
    """A text ``left + said + right`` whose ``said`` names an identity, with the article before it where it has one."""

    row: int
    text: str
    swapper: Swapper
    mentions: tuple[Mention, ...]
    left: str
    said: str
    right: str

    @classmethod
    def from_mentions(cls, row: int, text: str, swapper: Swapper, mentions: Sequence[Mention]) -> _Named:
        first = mentions[0]
        article = _ARTICLE.search(text[: first.start])
        start = first.start if article is None else article.start()
        return cls(row, text, swapper, tuple(mentions), text[:start], text[start : first.end], text[first.end :])

    def neutral(self, phrase: str, filler: str) -> str:
        """The text with the filler for the last word of what is said; its article is that of the filler."""
        words = phrase.split()
        words[-1] = filler
        if words[0].casefold() in ("a", "an") and len(words) == 2:
            words[0] = article_of(filler)
        return f"{self.left}{' '.join(words)}{self.right}"


@dataclass(frozen=True)
class _Proposal:
    """A rewrite, and the two texts that must be labelled alike for it to be kept."""

    of: _Named
    text: str
    judged: tuple[str, str]


class LanguageModelRewrites:
    """Texts rewritten by a causal language model with another group in place of the first one named, as in DISCO.

    The model is shown four pairs of sentences that differ in the identity, out of the text's own lexicon, then the text
    and its rewrite as far as the identity, and goes on from there; it may name groups that no lexicon lists. Of each
    text ``proposals`` are drawn, and one is kept where it

    - leads back to the text: its words, at most two more than they replace, are followed by the text's next word, or by
      an end where the text has one; the rest is the text's own
    - speaks of somebody else: the group is no longer named
    - keeps its label: the classifier decides alike on the text and on the rewrite, with a filler in the place of the
      identity (of the last of the words written); a ``judge`` decides on the two as they are
    - reads as fluently: its mean log-likelihood per token is at most ``fluency_margin`` nats below that of the text

    in that order, until there are ``copies``. classifier: the model that is to be mitigated. judge: a classifier of the
    user's own, trusted with identities, in its place. Texts whose prompt does not fit the model's context are left out.
    Whether the new words name a group at all nobody checks. ``counts``: what became of the proposals of the last call;
    :meth:`summary` says it in words.

    Raises ValueError for options out of range; NotApplicableError, in a call, for a masked model.

    Source: Chen, Gao, Bosselut, Sabharwal and Richardson, ACL 2023 (DISCO).
    """

    def __init__(
        self,
        language_model: AuditedLanguageModel,
        classifier: AuditedModel,
        lexicons: Sequence[Lexicon] | None = None,
        *,
        copies: int = 1,
        proposals: int = 4,
        fluency_margin: float = 0.5,
        temperature: float = 0.9,
        filler: str | None = None,
        judge: AuditedModel | None = None,
    ) -> None:
        if copies < 1 or proposals < copies:
            raise ValueError(f"copies must be at least 1 and at most the {proposals} proposals, not {copies}")
        check_not_negative("fluency_margin", fluency_margin)
        self.language_model = language_model
        self.classifier = classifier
        self.judge = judge
        self.lexicons = built_in() if lexicons is None else tuple(lexicons)
        self.copies = copies
        self.proposals = proposals
        self.fluency_margin = fluency_margin
        self.temperature = temperature
        self.filler = filler_of(filler)
        self.counts: Counter[str] = Counter()
        self._swappers = [Swapper(lexicon) for lexicon in self.lexicons]

    def __call__(self, texts: Sequence[str], rng: np.random.Generator) -> list[Counterfactuals]:
        """Counterfactuals of the texts that name an identity and of which a rewrite was kept."""
        self.counts = Counter()
        named = self._find_mentions(texts, rng)
        drawn = self._draw_rewrites(named, rng)
        close = [self._close(of, texts) for of, texts in zip(named, drawn, strict=True)]
        proposals = self._of_same_label([p for found in close for p in found])
        kept: dict[int, list[str]] = {}
        for proposal in self._fluent(proposals):
            kept.setdefault(proposal.of.row, []).append(proposal.text)
        self.counts["kept"] = sum(len(found[: self.copies]) for found in kept.values())
        self.counts[_SPARE] = sum(len(found[self.copies :]) for found in kept.values())
        return [
            Counterfactuals(
                of.row,
                tuple(kept[of.row][: self.copies]),
                of.swapper.swap(of.text, of.mentions[0].identity, self.filler, list(of.mentions)),
                of.swapper.lexicon.category,
            )
            for of in named
            if of.row in kept
        ]

    def summary(self) -> str:
        """The fate of the last call's proposals, in one sentence."""
        dropped = ", ".join(f"{self.counts[why]:,} {why}" for why in (*REASONS, _SPARE))
        long = self.counts["too long"]
        return (
            f"The language model proposed {self.counts['proposed']:,} rewrites of {self.counts['texts']:,} texts; "
            f"{self.counts['kept']:,} were kept, and of the others there were {dropped}"
            f"{f'; {long:,} texts were too long for it' if long else ''}."
        )

    # ---- proposals -------------------------------------------------------------------------------------------------

    def _find_mentions(self, texts: Sequence[str], rng: np.random.Generator) -> list[_Named]:
        found = []
        for row, text in enumerate(texts):
            # A line break would end the prompt's example.
            line = " ".join(text.split())
            own = [(s, m) for s in self._swappers for m in [s.mentions(line)] if m]
            if own:
                swapper, mentions = own[int(rng.integers(len(own)))]
                found.append(_Named.from_mentions(row, line, swapper, mentions))
        return found

    def _draw_rewrites(self, sources: Sequence[_Named], rng: np.random.Generator) -> list[list[str]]:
        """What the model writes in the place of each text's identity."""
        import torch

        from auditor.models.generation import Sampling, continuations

        model = self.language_model
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        shots = {id(s): _shots(s, rng) for s in {id(of.swapper): of.swapper for of in sources}.values()}
        prompts = [f"{shots[id(of.swapper)]}Text: {of.text}\nOf another group: {of.left}".rstrip() for of in sources]
        sizes = [len(model.tokenizer(of.said, add_special_tokens=False).input_ids) for of in sources]
        sampling = Sampling(max_new_tokens=max(sizes, default=0) + _EXTRA_TOKENS, temperature=self.temperature)
        room = model.context
        fits = [
            k
            for k, prompt in enumerate(prompts)
            if room is None or len(model.tokenizer(prompt).input_ids) + sampling.max_new_tokens <= room
        ]
        drawn: list[list[str]] = [[] for _ in sources]
        found = continuations(model, [prompts[k] for k in fits], self.proposals, sampling, generator)
        for k, texts in zip(fits, found, strict=True):
            drawn[k] = texts
        self.counts["texts"] = len(fits)
        self.counts["too long"] = len(sources) - len(fits)
        self.counts["proposed"] = sum(map(len, drawn))
        return drawn

    # ---- filters ---------------------------------------------------------------------------------------------------

    def _close(self, source: _Named, rewrites: Sequence[str]) -> list[_Proposal]:
        """Those that lead back to the text and speak of somebody else."""
        found: dict[str, _Proposal] = {}
        (filler, *_) = self.filler.words["adjective"]
        for words in rewrites:
            said = in_its_place(words, source.said, source.right)
            text = f"{source.left}{said}{source.right}"
            if said is None:
                self.counts[_STRAYED] += 1
            elif source.mentions[0].identity in {m.identity for m in source.swapper.mentions(text)}:
                self.counts[_SAME] += 1
            elif text in found:
                self.counts[_REPEATED] += 1
            else:
                neutral = (source.neutral(_last_as_one(source), filler), source.neutral(said, filler))
                found[text] = _Proposal(source, text, neutral if self.judge is None else (source.text, text))
        return list(found.values())

    def _of_same_label(self, proposals: Sequence[_Proposal]) -> list[_Proposal]:
        if not proposals:
            return []
        texts = list(dict.fromkeys(text for p in proposals for text in p.judged))
        label = dict(zip(texts, self._labels(texts).tolist(), strict=True))
        kept = [p for p in proposals if label[p.judged[0]] == label[p.judged[1]]]
        self.counts[_LABEL] = len(proposals) - len(kept)
        return kept

    def _labels(self, texts: Sequence[str]) -> IntArray:
        probabilities = (self.judge or self.classifier).predict_proba(np.asarray(texts, object))
        return np.asarray(probabilities.argmax(axis=1), np.int64)

    def _fluent(self, proposals: Sequence[_Proposal]) -> list[_Proposal]:
        if not proposals:
            return []
        texts = list(dict.fromkeys(text for p in proposals for text in (p.of.text, p.text)))
        fluency = dict(zip(texts, per_token(self.language_model, texts).tolist(), strict=True))
        kept = [p for p in proposals if fluency[p.text] >= fluency[p.of.text] - self.fluency_margin]
        self.counts[_FLUENCY] = len(proposals) - len(kept)
        return kept


def per_token(model: AuditedLanguageModel, texts: Sequence[str]) -> FloatArray:
    """(n,) mean log-likelihoods per token in nats, at most 0; only of tokens with one, such as all but the first."""
    found = model.token_log_probabilities(model.encode(texts))
    return np.asarray([np.nanmean(p) for p in found])


def _shots(swapper: Swapper, rng: np.random.Generator) -> str:
    """Pairs of sentences that differ in the identity, as an example of what is wanted."""
    names = swapper.lexicon.identities
    sentences = list(dict.fromkeys([*templates(), *swapper.lexicon.templates]))
    lines: list[str] = []
    for k in rng.permutation(len(sentences)).tolist():
        first, second = (names[i] for i in rng.choice(len(names), 2, replace=False).tolist())
        place = int(rng.integers(2**16))
        pair = [swapper.fill(sentences[k], identity, place) for identity in (first, second)]
        if pair[0] is not None and pair[1] is not None and pair[0] != pair[1]:
            lines.append(f"Text: {pair[0]}\nOf another group: {pair[1]}\n\n")
        if len(lines) == _SHOTS:
            break
    return "".join(lines)


def in_its_place(rewrite: str, original: str, right: str) -> str | None:
    """The written words that replace the original ones before ``right``; None if they do not lead to it.

    Where a word follows in the text, it is what stands before that word; at an end or a stop of the text, what stands
    before the next stop. An article is met by an article.
    """
    following = _WORD.match(right.lstrip())
    words = list(_WORD.finditer(rewrite.split("\n")[0] if following else rewrite))
    if following is None:
        end = _ENDS.search(rewrite)
        place = len(rewrite) if end is None else end.start()
        own = [m for m in words if m.end() <= place]
    else:
        wanted = following.group().casefold()
        at = next((k for k, m in enumerate(words) if k and m.group().casefold() == wanted), 0)
        own = words[:at]
    if not own or len(own) > len(original.split()) + _EXTRA_WORDS:
        return None
    found = " ".join(rewrite[: own[-1].end()].split())
    articles = [text.split()[0].casefold() in ("a", "an") for text in (original, found)]
    if _ENDS.search(found) or articles[0] != articles[1] or (articles[1] and len(own) == 1):
        return None
    return found


def _last_as_one(source: _Named) -> str:
    """What is said with one word for the identity, however many it has."""
    article = source.said[: len(source.said) - (source.mentions[0].end - source.mentions[0].start)]
    return f"{article}x"
