"""Counterfactual token fairness: changes of a text classifier's answer with the identity named in the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError, OtherKindError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.lexicons import CATEGORIES, PLACEHOLDER, Identity, Lexicon, built_in, neutral, read_lexicon, templates
from auditor.data.swaps import Mention, Swapper
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.groups import LargestRate
from auditor.statistics.means import PairedDifference, WorstPairedDifference, paired_difference
from auditor.statistics.rates import Proportion, RateTable
from auditor.statistics.values import bounded_mean
from probes.probe_inputs import chosen_methods, whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

REFERENCE = "neutral words"
# Texts read for every one that is wanted; identity terms are rare in most texts, and reading stops somewhere.
_READ_PER_WANTED = 20
_MOST_BARS = 20
_CONFIDENCE_OF_FIGURE = 0.95


class CounterfactualTokenFairness(BaseProbe):
    """Changes of a text classifier's scores and decisions between texts that differ only in the named identity.

    A cluster is a sentence: a template that is filled with every identity of a category, or a text of the user's in
    which the first identity named is given the place of every other in turn, and that other its place
    (:mod:`auditor.data.swaps`). ``s(t, i)``: the model's probability of the favourable class (``data.positive``, else
    the last class) for cluster t with identity i; of the words of the reference, the mean over all of them. Templates
    are the methods ``templates``, the user's texts ``texts``, and for each: ``worst_identity_gap``,
    ``counterfactual_flip_rate``, ``worst_category_flip_rate``, ``random_swap_flip_rate``, ``identity_score_gap`` and
    ``texts_with_identity_terms``.

    - ``worst_identity_gap``: j ranges over neutral words such as "tall" too where they fit. Judged from the paired
      differences of all pairs at once (:class:`~auditor.statistics.means.WorstPairedDifference`), clustered by
      sentence. Undefined upwards where an identity was compared with no other in two sentences, which the detail names.

    Rates and gaps come by category too; bounds over clusters (:class:`~auditor.statistics.values.BoundedMean`).

    Templates speak of sentences like them, and texts of the rows they were drawn from; neither says which score would
    be right. A rule that ought to treat identities differently, such as one that looks for slurs, FAILs here too.

    categories: ``auto``, or names out of ``auditor.data.lexicons.CATEGORIES``. lexicon: paths of the user's own
    lexicons; the built-in ones then take no part unless ``categories`` names them; one with ``reference = true``
    replaces the neutral words. methods: ``auto``, or names out of
    ``CounterfactualTokenFairness.methods``. n_templates: most templates of a category, drawn without replacement.
    n_texts: most texts, drawn alike; 20 times as many are read at most. min_hits: fewest texts in which a category must
    be named to be measured in texts.

    Raises NotApplicableError where the model takes no texts, or where nothing that was asked for can be measured;
    ConfigError for a lexicon or category that is wrong.

    Sources: Garg et al., AIES 2019 (counterfactual token fairness); Dixon et al., AIES 2018 (identity templates);
    Kusner et al., NeurIPS 2017.
    """

    name = "counterfactual_token_fairness"
    pillar = "fairness"
    goal = "Does a text's score change with the identity it names?"
    citation = "Garg et al., AIES 2019; Dixon et al., AIES 2018"
    methods = ("templates", "texts")
    needs = (Need.CLASSIFIER,)
    questions = (AuditQuestion("identity", form="percent", headline=("worst_category_flip_rate",)),)
    ideal_when_same = {
        "worst_identity_gap": "scores",
        "identity_score_gap": "scores",
        "counterfactual_flip_rate": "decisions",
        "worst_category_flip_rate": "decisions",
        "random_swap_flip_rate": "decisions",
    }
    # Sentences of a category, and the true gap of an identity, found beyond 0.10 with 80 % power among 4 judgements at
    # 5 % over all built-in categories, where scores vary from sentence to sentence by a standard deviation of 0.10.
    power: ClassVar[Power] = Power(80, 0.26)
    untrusted_options = allow_untrusted("categories", "methods", "n_templates", "n_texts", reads=("lexicon",))
    metrics = define_metrics(
        """
        worst_identity_gap: max over i, j of |mean_t s(t, i) - s(t, j)| within any category, s the score of sentence t
          with identity i; [0, 1], ideal 0; at 0.1 naming one identity for another moves the score by 10 points on
          average; Garg et al., AIES 2019
        counterfactual_flip_rate: share of clusters in which the decision is not the same for all identities of a
          category, neutral words apart; [0, 1], ideal 0; at 0.05 in five sentences of 100 the identity named decides;
          Garg et al., AIES 2019
        worst_category_flip_rate: largest share, of any category, of its sentences in which the decision is not the same
          for all identities; [0, 1], ideal 0; many sentences of one category do not hide the few of another; Garg et
          al., AIES 2019
        random_swap_flip_rate: share of clusters whose decision one swap drawn at random changes; [0, 1], ideal 0; what
          a typical swap does; Garg et al., AIES 2019
        identity_score_gap: mean_t s(t, i) - mean_t,j s(t, j) over all identities j of its category, s the score of
          sentence t; [-1, 1], ideal 0; at -0.05 the identity is scored 5 points below those of its category; Dixon et
          al., AIES 2018
        texts_with_identity_terms: share of the texts read that name an identity at all; [0, 1], no ideal; how much of
          the data the swaps speak of; Dixon et al., AIES 2018
        """
    )

    def __init__(
        self,
        *,
        categories: str | Sequence[str] = "auto",
        lexicon: str | Sequence[str] | None = None,
        methods: str | Sequence[str] = "auto",
        n_templates: int | None = None,
        n_texts: int = 500,
        min_hits: int = 20,
    ) -> None:
        whole_number("n_templates", n_templates, 2)
        whole_number("n_texts", n_texts, 2)
        whole_number("min_hits", min_hits, 2)
        self.categories = categories
        self.lexicon = lexicon
        self.wanted = chosen_methods(methods, self.methods)
        self.n_templates = n_templates
        self.n_texts = n_texts
        self.min_hits = min_hits
        paths = [lexicon] if isinstance(lexicon, str) else list(lexicon or [])
        named = [categories] if isinstance(categories, str) else list(categories)
        # Read here, because a mistyped path or category is a usage error and no finding.
        own = [read_lexicon(path) for path in paths]
        others = [lexicon for lexicon in own if not lexicon.reference]
        ours = ([] if others else list(CATEGORIES)) if named == ["auto"] else named
        self.lexicons_ = (*built_in(ours), *others)
        self.reference_ = next((lexicon for lexicon in own if lexicon.reference), neutral())
        names = [lexicon.category for lexicon in self.lexicons_]
        if not names:
            raise ValueError("at least one category must be named, or a lexicon given that is no reference")
        if len(set(names)) < len(names):
            raise ValueError(f"two lexicons are about one category ({', '.join(names)})")
        if any(REFERENCE in lexicon.names for lexicon in self.lexicons_):
            raise ValueError(f"no identity may be called {REFERENCE!r}")

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements by template and by text; see the class for their definitions."""
        rows = data.evaluation
        _require_texts(model, rows)
        found: list[Measurement] = []
        reasons: list[str] = []
        asked = self.methods if "auto" in self.wanted else tuple(m for m in self.methods if m in self.wanted)
        positive = model.n_outputs - 1 if rows.positive is None else rows.positive
        for method in asked:
            cases = self._templates(rng) if method == "templates" else self._texts(rows, rng)
            if cases.coverage is not None:
                found.append(cases.coverage)
            if cases.reason:
                reasons.append(cases.reason)
            if cases.by_lexicon:
                scored = _scored(model, cases.by_lexicon, positive)
                own = _measurements(method, scored, model, positive, rng)
                found += own if len(rows) else [replace(m, too_few=m.too_few or _untold(scored)) for m in own]
            elif "auto" not in self.wanted:
                raise NotApplicableError(cases.reason)
        if not any(m.metric == "worst_identity_gap" for m in found):
            raise NotApplicableError(" ".join(reasons))
        return found

    def _templates(self, rng: np.random.Generator) -> _Cases:
        """Every lexicon's templates, filled with its identities."""
        sentences = list(dict.fromkeys([*templates(), *(t for lexicon in self.lexicons_ for t in lexicon.templates)]))
        rank = {sentence: int(r) for sentence, r in zip(sentences, rng.permutation(len(sentences)), strict=True)}
        which = {sentence: int(k) for sentence, k in zip(sentences, rng.integers(1 << 30, size=len(rank)), strict=True)}
        cluster = {sentence: i for i, sentence in enumerate(sentences)}
        found: list[_Category] = []
        for lexicon in self.lexicons_:
            swapper, reference = Swapper(lexicon), _reference(lexicon, self.reference_)
            fitting = [t for t in sentences if _fits(t, lexicon) and (t in lexicon.templates or not lexicon.templates)]
            fitting = sorted(fitting, key=lambda t: rank[t])[: self.n_templates]
            cases = []
            for template in sorted(fitting, key=lambda t: cluster[t]):
                filled = [_as_tuple(swapper.fill(template, i, which[template])) for i in lexicon.identities]
                others = [swapper.fill(template, i) for i in reference]
                cases.append(_Case(cluster[template], None, (*filled, tuple(t for t in others if t is not None))))
            if len(cases) >= 2:
                found.append(_Category(lexicon, tuple(cases)))
        return _Cases(
            tuple(found),
            "" if found else "No template has places for the roles of the lexicon: give it templates of its own.",
        )

    def _texts(self, rows: AuditData, rng: np.random.Generator) -> _Cases:
        """The user's texts that name an identity, with every other in its place."""
        texts = list(dict.fromkeys(str(text) for text in rows.X))
        if not texts:
            return _Cases((), "There are no texts to swap identities in: add --data FILE and --text COLUMN.")
        order = rng.permutation(len(texts))[: self.n_texts * _READ_PER_WANTED]
        swappers = [(Swapper(lexicon), _reference(lexicon, self.reference_)) for lexicon in self.lexicons_]
        by_lexicon: list[list[_Case]] = [[] for _ in swappers]
        hits = 0
        for cluster in order.tolist():
            named = [swapper.mentions(texts[cluster]) for swapper, _ in swappers]
            hits += any(named)
            if hits > self.n_texts or not any(named):
                continue
            for (swapper, reference), mentions, cases in zip(swappers, named, by_lexicon, strict=True):
                case = _swapped(swapper, reference, texts[cluster], mentions, cluster)
                if case is not None:
                    cases.append(case)
        kept = tuple(
            _Category(lexicon, tuple(cases))
            for lexicon, cases in zip(self.lexicons_, by_lexicon, strict=True)
            if len(cases) >= self.min_hits
        )
        few = [
            f"{lexicon.category} ({len(cases)})"
            for lexicon, cases in zip(self.lexicons_, by_lexicon, strict=True)
            if len(cases) < self.min_hits
        ]
        read_ = f"Of {len(order):,} different texts read, {hits:,} name an identity"
        left_out = f"; named in fewer than {self.min_hits} and not measured: {', '.join(few)}" if few else ""
        coverage = Measurement(
            metric="texts_with_identity_terms",
            method="texts",
            estimate=Proportion(successes=hits, n=len(order)),
            n_samples=len(order),
            detail=read_ + left_out,
        )
        reason = f"{read_}{left_out}. Lower min_hits, give a lexicon of the words these texts use, or more texts."
        return _Cases(kept, "" if kept else reason, coverage)


# ---- cases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """A cluster's texts for every identity, and for the reference last; none where an identity does not fit.

    ``anchor``: the identity that the user's text names, None for a template.
    """

    cluster: int
    anchor: int | None
    texts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Category:
    lexicon: Lexicon
    cases: tuple[_Case, ...]


@dataclass(frozen=True)
class _Cases:
    by_lexicon: tuple[_Category, ...]
    reason: str = ""
    coverage: Measurement | None = None


@dataclass(frozen=True, eq=False)
class _Scored:
    """A category's numbers. scores (m, k + 1), the reference last, NaN where there is none; decisions (m, k), -1 there.

    clusters (m,) and anchors (m,), -1 for a template.
    """

    category: str
    names: tuple[str, ...]
    clusters: IntArray
    anchors: IntArray
    scores: FloatArray
    decisions: IntArray
    source: str


def _require_texts(model: AuditedModel, rows: AuditData) -> None:
    """Raises NotApplicableError where the model takes no texts."""
    from auditor.data.preprocessing import TextPreprocessing

    other = model.preprocessing is not None and not isinstance(model.preprocessing, TextPreprocessing)
    if other or model.features is not None or rows.modality != "text":
        raise OtherKindError("Needs a model of texts: this one takes something else.")
    if model.preprocessing is None and not len(rows):
        try:
            model.predict_proba(np.asarray(["One sentence.", "And another one."], object))
        except Exception as error:  # whatever a model that expects no text may raise
            raise NotApplicableError(
                "Needs a model of texts, and this one could not read a sentence: if it does take texts, add --data "
                f"FILE and --text COLUMN ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            ) from error


def _fits(template: str, lexicon: Lexicon) -> bool:
    places = {place.lower() for place in PLACEHOLDER.findall(template)}
    return sum(places <= identity.words.keys() for identity in lexicon.identities) >= 2


def _reference(lexicon: Lexicon, words: Lexicon) -> tuple[Identity, ...]:
    """The reference as one identity a word; none for a lexicon without a role that it has."""
    if not words.roles & lexicon.roles:
        return ()
    return tuple(
        Identity(identity.name, {role: (found[k % len(found)],) for role, found in identity.words.items()})
        for identity in words.identities
        for k in range(max(map(len, identity.words.values())))
    )


def _as_tuple(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)


def _swapped(
    swapper: Swapper, reference: Iterable[Identity], text: str, mentions: list[Mention], cluster: int
) -> _Case | None:
    """A text with every other identity in the place of the first that it names; None where no other fits."""
    if not mentions:
        return None
    names = swapper.lexicon.names
    anchor = mentions[0].identity
    texts = [
        (text,) if name == anchor else _as_tuple(swapper.swap(text, anchor, name, mentions))
        for name in names
    ]  # fmt: skip
    if sum(map(bool, texts)) < 2:
        return None
    others = [swapper.swap(text, anchor, identity, mentions) for identity in reference]
    return _Case(cluster, names.index(anchor), (*texts, tuple(t for t in others if t is not None)))


def _scored(model: AuditedModel, categories: Sequence[_Category], positive: int) -> list[_Scored]:
    """Every different text is put to the model once."""
    place: dict[str, int] = {}
    for category in categories:
        for case in category.cases:
            for text in (t for texts in case.texts for t in texts):
                place.setdefault(text, len(place))
    asked = np.asarray(list(place), object)
    probabilities = model.predict_proba(asked)
    score, decided = probabilities[:, positive], model.decide(probabilities, positive, asked)
    found = []
    for category in categories:
        lexicon, cases = category.lexicon, category.cases
        k = len(lexicon.identities)
        scores, decisions = np.full((len(cases), k + 1), np.nan), np.full((len(cases), k), -1, np.int64)
        for row, case in enumerate(cases):
            for column, texts in enumerate(case.texts):
                if texts:
                    scores[row, column] = score[[place[t] for t in texts]].mean()
                if texts and column < k:
                    decisions[row, column] = decided[place[texts[0]]]
        own = f"{lexicon.origin}, sha256 {lexicon.sha256[:16]}" if lexicon.origin != lexicon.category else ""
        found.append(
            _Scored(
                category=lexicon.category,
                names=(*lexicon.names, REFERENCE),
                clusters=np.asarray([case.cluster for case in cases], np.int64),
                anchors=np.asarray([-1 if case.anchor is None else case.anchor for case in cases], np.int64),
                scores=scores,
                decisions=decisions,
                source=own,
            )
        )
    return found


# ---- measurements --------------------------------------------------------------------------------------------------


def _measurements(
    method: str, scored: Sequence[_Scored], model: AuditedModel, positive: int, rng: np.random.Generator
) -> list[Measurement]:
    what = "templates" if method == "templates" else "texts"
    number = {s.category: [s] for s in scored}
    found = [
        _gap(method, scored, f"score: P({model.classes[positive]})"),
        _flips(method, scored),
        _worst_flips(method, scored),
        _random_flips(method, scored, rng),
    ]
    for category, own in number.items():
        found += [
            _gap(method, own, f"{len(own[0].clusters)} {what}", {"category": category}),
            _flips(method, own, {"category": category}),
        ]
    gaps = [gap for s in scored for gap in _identity_gaps(method, s)]
    return [*found, *_with_figure(gaps, method, model.classes[positive])]


def _pairs(scored: _Scored) -> list[PairedDifference]:
    """Paired differences of every two identities, the reference among them, over the clusters that have both."""
    found = []
    for i, j in combinations(range(len(scored.names)), 2):
        differences = scored.scores[:, i] - scored.scores[:, j]
        differences = differences[np.isfinite(differences)]
        if differences.size >= 2:
            names = [f"{scored.category}/{scored.names[k]}" for k in (i, j)]
            found.append(paired_difference(first=names[0], second=names[1], differences=differences))
    return found


def _uncompared(scored: _Scored, pairs: Sequence[PairedDifference]) -> list[str]:
    """Identities that some sentence has, and that no other identity was compared with."""
    reference = f"{scored.category}/{REFERENCE}"
    compared = {name for p in pairs if reference not in (p.first, p.second) for name in (p.first, p.second)}
    named = [f"{scored.category}/{name}" for name in scored.names[:-1]]
    there = np.isfinite(scored.scores)
    return [name for k, name in enumerate(named) if bool(there[:, k].any()) and name not in compared]


def _gap(method: str, scored: Sequence[_Scored], note: str, group: dict[str, str] | None = None) -> Measurement:
    by_category = {s.category: _pairs(s) for s in scored}
    pairs = [pair for own in by_category.values() for pair in own]
    lost = [name for s in scored for name in _uncompared(s, by_category[s.category])]
    estimate: AnyEstimate = (
        WorstPairedDifference(pairs=tuple(pairs), uncompared=bool(lost))
        if pairs
        else Undefined(reason="no two identities are named in two sentences that fit both")
    )
    widest = sorted(
        (_widest(s, max(own, key=lambda p: abs(p.centre))) for s in scored if (own := by_category[s.category])),
        reverse=True,
    )
    sources = sorted({s.source for s in scored if s.source})
    alone = f"compared with no other in two sentences: {', '.join(lost)}" if lost else ""
    parts = [", ".join(text for _, text in widest), alone, note, *(f"lexicon: {source}" for source in sources)]
    return Measurement(
        metric="worst_identity_gap",
        method=method,
        estimate=estimate,
        n_samples=len({int(c) for s in scored for c in s.clusters}),
        ideal=0.0,
        group=group or {},
        detail="; ".join(part for part in parts if part),
    )


def _widest(scored: _Scored, pair: PairedDifference) -> tuple[float, str]:
    """The size of a gap, and the gap in words: who has the higher score, who the lower, over the same sentences."""
    i, j = (scored.names.index(name.removeprefix(f"{scored.category}/")) for name in (pair.first, pair.second))
    if pair.centre == 0.0:
        return 0.0, f"{scored.category}: no gap"
    both = np.isfinite(scored.scores[:, i] - scored.scores[:, j])
    means = {k: float(scored.scores[both, k].mean()) for k in (i, j)}
    high, low = (i, j) if means[i] >= means[j] else (j, i)
    return abs(pair.centre), (
        f"{scored.category}: {scored.names[high]} {means[high]:.3f} against {scored.names[low]} {means[low]:.3f}"
    )


def _untold(scored: Sequence[_Scored]) -> str:
    """Why a model that gives all sentences one score is not judged by them, where there are no texts of the user's."""
    scores = np.concatenate([s.scores.ravel() for s in scored])
    known = scores[np.isfinite(scores)]
    if known.size < 2 or known.min() < known.max():
        return ""
    return (
        f"The model gives all {known.size:,} sentences the same score, and cannot show by them that it treats "
        "identities alike: give it texts of your own with --data FILE and --text COLUMN."
    )


def _flipped(scored: _Scored) -> BoolArray:
    """(m,) whether the decision is not the same for all identities that fit."""
    top = scored.decisions.max(axis=1, keepdims=True)
    return np.asarray(((scored.decisions != top) & (scored.decisions >= 0)).any(axis=1), np.bool_)


def _flips(method: str, scored: Sequence[_Scored], group: dict[str, str] | None = None) -> Measurement:
    flipped: dict[int, bool] = {}
    parts = []
    for s in scored:
        own = _flipped(s)
        parts.append(f"{s.category} {int(own.sum())} of {own.size}")
        for cluster, flip in zip(s.clusters.tolist(), own.tolist(), strict=True):
            flipped[cluster] = flipped.get(cluster, False) or flip
    return Measurement(
        metric="counterfactual_flip_rate",
        method=method,
        estimate=Proportion(successes=sum(flipped.values()), n=len(flipped)),
        n_samples=len(flipped),
        ideal=0.0,
        group=group or {},
        detail=f"sentences whose decision is not the same for all identities: {', '.join(parts)}",
    )


def _worst_flips(method: str, scored: Sequence[_Scored]) -> Measurement:
    """The largest flip rate of a category over its own sentences: many of one do not hide the few of another."""
    flips = [_flipped(s) for s in scored]
    table = RateTable(
        rate="flip_rate", successes=tuple(int(f.sum()) for f in flips), n=tuple(int(f.size) for f in flips)
    )
    return Measurement(
        metric="worst_category_flip_rate",
        method=method,
        estimate=LargestRate(table=table),
        n_samples=len({int(c) for s in scored for c in s.clusters}),
        ideal=0.0,
        detail="by category: "
        + ", ".join(f"{s.category} {int(f.sum())} of {f.size}" for s, f in zip(scored, flips, strict=True)),
    )


def _random_flips(method: str, scored: Sequence[_Scored], rng: np.random.Generator) -> Measurement:
    """One swap for each cluster: a category it has, the identity it names (any for a template), and any other."""
    having: dict[int, list[tuple[_Scored, int]]] = {}
    for s in scored:
        for row, cluster in enumerate(s.clusters.tolist()):
            having.setdefault(cluster, []).append((s, row))
    flips = 0
    for cases in having.values():
        s, row = cases[int(rng.integers(len(cases)))]
        fitting = np.flatnonzero(s.decisions[row] >= 0)
        first = int(s.anchors[row]) if s.anchors[row] >= 0 else int(rng.choice(fitting))
        second = int(rng.choice(fitting[fitting != first]))
        flips += bool(s.decisions[row, first] != s.decisions[row, second])
    return Measurement(
        metric="random_swap_flip_rate",
        method=method,
        estimate=Proportion(successes=flips, n=len(having)),
        n_samples=len(having),
        ideal=0.0,
        detail="one swap a sentence, drawn at random",
    )


def _identity_gaps(method: str, scored: _Scored) -> list[Measurement]:
    identities = scored.scores[:, :-1]
    complete = np.isfinite(identities).all(axis=1)
    centre = identities.mean(axis=1)
    found = []
    for column, name in enumerate(scored.names):
        values = scored.scores[:, column]
        rows = complete & np.isfinite(values)
        if column == len(scored.names) - 1 and not rows.any():
            continue
        found.append(
            Measurement(
                metric="identity_score_gap",
                method=method,
                estimate=bounded_mean(values[rows] - centre[rows], low=-1.0, high=1.0),
                n_samples=int(rows.sum()),
                ideal=0.0,
                at={"category": scored.category, "identity": name},
                detail=(
                    f"mean score {values[rows].mean():.3f}, all identities of the category {centre[rows].mean():.3f}"
                    if rows.any()
                    else "no sentence fits every identity of the category"
                ),
            )
        )
    return found


def _with_figure(gaps: list[Measurement], method: str, label: str) -> list[Measurement]:
    """The gaps, the first of them with a drawing of the widest."""
    drawn = [m for m in gaps if np.isfinite(m.estimate.value)]
    if not drawn:
        return gaps
    widest = sorted(drawn, key=lambda m: -abs(m.estimate.value))[:_MOST_BARS]
    widest = sorted(widest, key=lambda m: -m.estimate.value)
    limits = [m.estimate.interval(_CONFIDENCE_OF_FIGURE) for m in widest]
    names = tuple(f"{m.at['category']}: {m.at['identity']}" for m in widest)
    figure = Figure(
        id=f"{CounterfactualTokenFairness.name}/identities/{method}",
        probe=CounterfactualTokenFairness.name,
        kind="bars",
        title=f"P({label}) by identity, against the mean of its category ({method})",
        series=(
            Series(
                name="identity_score_gap",
                x=names,
                y=tuple(m.estimate.value for m in widest),
                low=tuple(low for low, _ in limits),
                high=tuple(high for _, high in limits),
            ),
        ),
        alt=(
            f"Mean score of sentences that differ only in the identity named: {names[0]} is farthest above the mean of "
            f"its category ({widest[0].estimate.value:+.3f}), {names[-1]} farthest below "
            f"({widest[-1].estimate.value:+.3f})."
        ),
        x_label="identity",
        y_label="difference in mean score",
        caption=f"The {len(widest)} identities farthest from the mean, each with its own 95 % interval over sentences.",
    )
    place = gaps.index(drawn[0])
    first = gaps[place]
    return [*gaps[:place], replace(first, figure=figure), *gaps[place + 1 :]]
