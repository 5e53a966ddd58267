"""Contents of a displayable explanation: shares of features, groups and words; and figures of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import FloatArray
from auditor.judging.figure_types import Figure, title_of
from auditor.judging.measurement import Measurement
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.means import ratio_of_means
from auditor.statistics.values import bounded_mean
from probes.attribution.attribution_figures import beeswarm_figure, heatmap_figure, text_figure
from probes.attribution.attribution_grades import PROBE
from probes.attribution.attribution_task import Problem
from probes.attribution.attribution_units import feature_names
from probes.attribution.faithfulness import group_gaps
from probes.attribution.method_selection import Verdict, join_halves
from probes.fairness.proxies import Screen, screen
from probes.probe_inputs import as_frame

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

MOST_WORDS = 20
_OF_SENSITIVE, _OF_PROXIES = "sensitive_attribution_share", "proxy_attribution_share"
PADDING = "(padding)"


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """An explanation of both halves' samples, in units that mean the same in all of them.

    values: (n, k) of a table's features, or of the words of all texts; (n, d) of an image's patches. names: of the k
    units, empty for images. rows: the samples in the same order.
    """

    values: FloatArray
    names: tuple[str, ...]
    rows: AuditData
    output_range: float


@dataclass(frozen=True)
class Features:
    """Known facts of a table's columns: the sensitive features, the model's inputs, and proxies among the rest."""

    sensitive: tuple[str, ...]
    taken: tuple[str, ...]
    screen: Screen

    @classmethod
    def from_rows(
        cls, model: AuditedModel, rows: AuditData, rng: np.random.Generator, least_strength: float
    ) -> Features | None:
        """Known facts from the model's columns and the groups of the same rows; None without groups."""
        groups = rows.sensitive_features
        if groups is None or rows.modality != "tabular":
            return None
        names = feature_names(model, rows)
        sensitive = tuple(str(c) for c in groups.columns)
        frame = as_frame(rows.X, model.features)
        frame = frame.set_axis([str(c) for c in frame.columns], axis=1)[[n for n in names if n not in sensitive]]
        found = screen(frame, groups, rng, least_strength=least_strength)
        return cls(sensitive, tuple(n for n in names if n in sensitive), found)


def explanation_of(verdict: Verdict, first: Problem, rows: AuditData) -> Explanation:
    """The chosen method's attributions of all samples, by feature, or by word at any position in a text.

    ``rows``: the samples of both halves in their order.
    """
    both = join_halves(verdict.explained_first, verdict.explained)
    kind = verdict.problem.units.kind
    values, names = both.values, both.units if kind == "feature" else ()
    if kind in ("word", "token"):
        values, names = _by_word(values, [*first.units.names, *verdict.problem.units.names])
    return Explanation(values=values, names=names, rows=rows, output_range=both.output_range)


def _by_word(values: FloatArray, names: Sequence[Sequence[str]]) -> tuple[FloatArray, tuple[str, ...]]:
    """(n, n_words) sums over the places at which a word stands in each text, and the words."""
    place: dict[str, int] = {}
    for text in names:
        for word in text:
            if word and word != PADDING:
                place.setdefault(word, len(place))
    out = np.zeros((len(values), len(place)))
    for i, text in enumerate(names):
        for j, word in enumerate(text):
            if word in place:
                out[i, place[word]] += values[i, j]
    return out, tuple(place)


def explanation_measurements(
    verdict: Verdict, explanation: Explanation, features: Features | None, rng: np.random.Generator
) -> list[Measurement]:
    """The explanation's contents if displayable; else the reason why its shares are unknown."""
    method = verdict.chosen
    note = verdict.note
    if not verdict.is_shown or not explanation.output_range or not np.isfinite(explanation.values).all():
        if features is None:
            return []
        reason = f"the explanation by {method} was refused; faithfulness_gain says why"
        shares = [f"{mean}{share}" for share in (_OF_SENSITIVE, _OF_PROXIES) for mean in ("", "mean_")]
        names = (*shares, *_groups_metric(explanation.rows))
        nothing = Undefined(reason=reason)
        n = len(explanation.values)
        return [
            Measurement(metric=m, method=method, estimate=nothing, n_samples=n, ideal=0.0, sensitive=features.sensitive)
            for m in names
        ]
    found: list[Measurement] = []
    magnitudes = np.abs(explanation.values)
    if features is not None:
        found += _shares(verdict.chosen, explanation, features, verdict.hint)
        found += _between_groups(method, explanation, verdict.hint)
    if verdict.problem.units.kind == "feature":
        kept, kind, detail = list(range(len(explanation.names))), "feature", note
    else:
        order = np.argsort(-magnitudes.sum(axis=0), kind="stable").tolist()
        used = [j for j in order if magnitudes[:, j].any()]
        kept, kind = (used[:MOST_WORDS] if explanation.names else []), "word"
        chosen = f"one of the {len(kept)} words with the largest shares, out of {len(used):,}"
        detail = f"{chosen}; {note}" if note else chosen
    bars = [
        Measurement(
            metric="global_importance",
            method=method,
            estimate=ratio_of_means(numerator=magnitudes[:, j], denominator=magnitudes.sum(axis=1)),
            n_samples=len(magnitudes),
            at={kind: explanation.names[j]},
            detail=detail,
        )
        for j in kept
    ]
    if bars and kind == "feature":
        swarm = beeswarm_figure(
            PROBE,
            method,
            explanation.names,
            explanation.values,
            as_frame(explanation.rows.X)[list(explanation.names)],
            output=verdict.problem.units.output,
            rng=rng,
            caption=note,
        )
        bars[0] = replace(bars[0], figure=_marked(swarm, note))
    return found + bars


def _marked(figure: Figure, note: str) -> Figure:
    return figure.model_copy(update={"title": f"{figure.title}{title_of(note)}"})


def _groups_metric(rows: AuditData) -> tuple[str, ...]:
    return () if rows.sensitive_features is None else ("attribution_difference_by_group",)


def _shares(method: str, explanation: Explanation, features: Features, note: str) -> list[Measurement]:
    taken = f"the model takes {', '.join(features.taken)}" if features.taken else "the model takes none of them"
    proxies = {a.feature for a in features.screen.proxies}
    screened = features.screen.describe()
    few = features.screen.too_few
    found = _share(_OF_SENSITIVE, method, explanation, features, set(features.taken), taken)
    for proxy in _share(_OF_PROXIES, method, explanation, features, proxies, screened):
        found.append(replace(proxy, too_few=few, n_needed=features.screen.n_needed) if few else proxy)
    return [replace(m, detail=f"{m.detail}; {note}") for m in found] if note else found


def _share(
    metric: str, method: str, explanation: Explanation, features: Features, feature_names: set[str], detail: str
) -> list[Measurement]:
    """The features' share of all attributions together, and the mean of their share of each row's own."""
    magnitudes = np.abs(explanation.values)
    columns = [j for j, name in enumerate(explanation.names) if name in feature_names]
    estimates: list[AnyEstimate] = [Exact(known=0.0), Exact(known=0.0)]
    shown = ""
    if columns:
        own, whole = magnitudes[:, columns].sum(axis=1), magnitudes.sum(axis=1)
        told = whole > 0.0
        each = np.minimum(own[told] / whole[told], 1.0)
        estimates = [ratio_of_means(numerator=own, denominator=whole), bounded_mean(each, low=0.0, high=1.0)]
        shown = f"Display only: a row's attributions have no limits together. Set a bound on mean_{metric}."
    return [
        Measurement(
            metric=name,
            method=method,
            estimate=estimate,
            n_samples=len(magnitudes),
            ideal=0.0,
            sensitive=features.sensitive,
            detail=detail,
            too_few=instead,
        )
        for name, estimate, instead in zip((metric, f"mean_{metric}"), estimates, (shown, ""), strict=True)
    ]


def _between_groups(method: str, explanation: Explanation, note: str) -> list[Measurement]:
    """For each sensitive feature: does the model use other features for one group than for another?"""
    groups = explanation.rows.sensitive_features
    found: list[Measurement] = []
    if groups is None:
        return found
    for column in groups.columns:
        labels = groups[column].astype("string").fillna("(missing)").tolist()
        largest, gaps = group_gaps(explanation.values, labels, explanation.names)
        detail = ""
        if gaps:
            worst = max(gaps, key=lambda name: gaps[name].value if np.isfinite(gaps[name].value) else -1.0)
            detail = f"largest for {worst}, out of {len(gaps)} features; bounded for all of them together"
        found.append(
            Measurement(
                metric="attribution_difference_by_group",
                method=method,
                estimate=largest,
                n_samples=len(labels),
                ideal=0.0,
                sensitive=(str(column),),
                detail="; ".join(part for part in (detail, note) if part),
            )
        )
    return found


def words_and_values(verdict: Verdict) -> tuple[list[list[str]], list[list[float]]]:
    """The units that each text has, and what each of them contributes."""
    units = verdict.problem.units
    words = [
        [w for w, p in zip(n, there, strict=True) if p] for n, there in zip(units.names, units.present, strict=True)
    ]
    return words, [v[there].tolist() for v, there in zip(verdict.explained.values, units.present, strict=True)]


def samples_figure(verdict: Verdict, *, pictures: bool) -> Figure | None:
    """Coloured texts, or maps over images, of the confirming half; ``pictures``: whether the data themselves may be
    displayed.

    None where there is nothing to draw without them.
    """
    problem, explained = verdict.problem, verdict.explained
    units = problem.units
    caption = verdict.note
    titles = [f"sample {i + 1}: scored {score:.3g}" for i, score in enumerate(explained.outputs)]
    if units.kind in ("word", "token"):
        if not pictures:
            return None
        words, values = words_and_values(verdict)
        drawn = text_figure(PROBE, verdict.chosen, words, values, titles, output=units.output, caption=caption)
        return _marked(drawn, caption)
    if units.kind != "patch" or explained.fine is None:
        return None
    images = problem.sample.X if pictures and np.asarray(problem.sample.X).dtype == np.uint8 else None
    maps = list(explained.fine)
    fits = images is not None and np.asarray(images).shape[1:3] == maps[0].shape
    drawn = heatmap_figure(
        PROBE,
        verdict.chosen,
        maps,
        titles,
        output=units.output,
        pictures=list(np.asarray(images)) if fits else None,
        smoothing=0.03,
        caption=caption,
    )
    return _marked(drawn, caption)
