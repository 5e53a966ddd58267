"""Token attribution: the words of a prompt that cause a continuation rather than its alternative."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.benchmarks.benchmark import Benchmark
from auditor.judging.figure_types import Figure
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import Proportion
from auditor.statistics.values import BoundedMean, bounded_mean
from probes.attribution.attribution_figures import text_figure
from probes.attribution.attribution_grades import grades_of
from probes.attribution.attribution_task import Problem
from probes.attribution.attribution_units import output_range
from probes.attribution.explanation_contents import words_and_values
from probes.attribution.faithfulness import ends, rank_correlations
from probes.attribution.feature_attribution import FeatureAttribution
from probes.attribution.gradient import Effort
from probes.attribution.method_selection import Checks, Parts, Verdict, judge_methods
from probes.attribution.methods import explain
from probes.attribution.prompt_tokens import Prompt, Unit, built_in_prompts, read_prompts
from probes.attribution.randomization_tests import FEWEST_COPIES
from probes.attribution.token_units import N_INFILL, Infill, TokenBaseline, token_problem
from probes.language.language_options import LikelihoodOptions, PrefixToken
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel

_FEWEST_PROMPTS = 4
_FEWEST_ALIGNED = 3
_N_CHECKED, _N_EXPLAINED, _N_REWORDED = 16, 8, 20
_MOST_PARAMETERS = 20_000_000
# In the order of preference where few prompts do not tell them apart.
_SMALL = ("integrated_gradients", "occlusion", "input_x_gradient")
_LARGE = ("occlusion", "input_x_gradient")
_TITLED = 60


class TokenAttribution(LikelihoodOptions, BaseProbe):
    """Token attribution of a prompt's continuation, by an explanation tested as faithful, or none.

    The explained score of a prompt is ``f = log p(target | prompt) - log p(foil | prompt)`` ("why A rather than B"), or
    ``log p(target | prompt)`` without a foil; of several tokens, the log-probabilities are summed. Units are words, or
    tokens. Methods are ranked on a third of the prompts, the chosen one is confirmed on the others, checked, and shown
    or refused, by the rule of :class:`~probes.attribution.feature_attribution.FeatureAttribution`, which also defines
    the other metrics. Of a shown one there is moreover, over the prompts that did not choose the method: ``cue_top_k``
    and ``paraphrase_consistency``.

    Ties are broken at random, and what a random attribution would reach is in the detail. Paraphrases, of at most 20 of
    the prompts, drawn, are compared over the words that both have, the k-th occurrence of a word with its k-th; at
    least 3. A refused explanation has neither: that what it says is plausible is no evidence that the model does so.

    The built-in sentences are 60, each about another occupation, up to the pronoun: "he" rather than "she". Their
    intervals are about sentences like these. ``benchmarks``: ``token_attribution`` is a file of JSON lines of one's
    own, with ``prompt`` and, each optional, ``target`` (else the likeliest next token), ``foil``, ``cues``,
    ``paraphrase``, ``rest`` (what follows the target, for masked models).

    methods: ``auto``, or names out of ``TokenAttribution.methods``; ``auto`` asks occlusion and input_x_gradient, and
    integrated_gradients first where the model has at most 20 million parameters. method: the one to force, marked
    UNEARNED where it is. unit: ``word`` or ``token``. infill, baseline: see
    :func:`~probes.attribution.token_units.token_problem`; ``prompts``, the default for the built-in sentences, must be
    asked for by name for a file, and serves where its prompts are built alike. top_k: the k of cue_top_k. n_samples:
    prompts drawn, all by default. n_steps, max_steps: of the path integral, doubled for prompts that miss completeness
    by half a per cent. n_copies: networks drawn anew for the sanity checks; 40 by default up to 20 million parameters,
    else none. show_texts: whether prompts of a file may stand in the report; the built-in ones do. max_memory: bytes
    that one pass may take. prefix_token: what stands before a prompt; by default what the tokenizer puts there by
    itself and nothing else, so that a prompt is explained as it is sent: a token more, and signs may turn.

    Raises NotApplicableError where a prompt is longer than the model's context, a target is no token of the tokenizer,
    a method does not apply, or there are fewer than 4 prompts.

    Sources: Ding and Koehn, NAACL 2021 (plausibility, consistency); Yin and Neubig, EMNLP 2022 (contrastive); DeYoung
    et al., ACL 2020; Rudinger et al., NAACL 2018 (the kind of sentences; these are written for this tool).
    """

    name = "token_attribution"
    pillar = "attribution"
    goal = "Which words make a language model go on as it does, rather than otherwise?"
    citation = "Ding and Koehn, NAACL 2021; Yin and Neubig, EMNLP 2022; DeYoung et al., ACL 2020"
    methods = (
        "integrated_gradients", "input_x_gradient", "saliency", "gradient_shap", "smooth_grad", "occlusion",
        "feature_ablation", "kernel_shap", "lime",
    )  # fmt: skip
    needs = (Need.LANGUAGE_MODEL,)
    questions = (AuditQuestion("arithmetic", metrics=("completeness_error",)), AuditQuestion("words"))
    # Prompts that confirm, and the true share of found cues that is FAILed against at least 0.5 with 80 % power.
    power = (40, 0.30)
    untrusted_options = allow_untrusted(
        "methods", "method", "unit", "infill", "baseline", "top_k", "n_samples", "n_steps", "max_steps", "n_copies",
        reads=("benchmarks",),
    )  # fmt: skip
    metrics = define_metrics(
        """
        cue_top_k: share of prompts one of whose annotated cues is among the k units with the largest absolute
          attribution; [0, 1], ideal 1; at 0.8 the explanation names what people would in 8 of 10 prompts; Ding and
          Koehn, NAACL 2021
        paraphrase_consistency: mean over prompts of Spearman's rank correlation between the attributions of a prompt
          and of its paraphrase; [-1, 1], ideal 1; low where the explanation changes with the wording alone; Ding and
          Koehn, NAACL 2021
        """,
        *FeatureAttribution.metrics,
    )

    def __init__(
        self,
        *,
        benchmarks: Mapping[str, str] | None = None,
        methods: str | Sequence[str] = "auto",
        method: str | None = None,
        unit: Unit = "word",
        infill: Infill = "auto",
        baseline: TokenBaseline = "auto",
        top_k: int = 2,
        n_samples: int | None = None,
        n_steps: int = 32,
        max_steps: int = 256,
        n_copies: int | None = None,
        show_texts: bool = False,
        max_memory: int | None = None,
        prefix_token: PrefixToken | None = None,
    ) -> None:
        super().__init__(prefix_token=prefix_token)
        wanted = (method,) if method is not None else (methods,) if isinstance(methods, str) else tuple(methods)
        unknown = [m for m in wanted if m not in (*self.methods, "auto")]
        if unknown or not wanted or (method is not None and method not in self.methods):
            known = ", ".join(self.methods)
            option = "methods must be auto or" if method is None else "method must be one"
            raise ValueError(f"{option} out of {known}, not {', '.join(map(str, unknown)) or method or 'none'}")
        for option, value, allowed in (
            ("unit", unit, get_args(Unit)),
            ("infill", infill, get_args(Infill)),
            ("baseline", baseline, get_args(TokenBaseline)),
        ):
            if value not in allowed:
                raise ValueError(f"{option} must be one of {', '.join(allowed)}, not {value!r}")
        whole_number("top_k", top_k, 1)
        whole_number("n_samples", n_samples, _FEWEST_PROMPTS)
        whole_number("n_steps", n_steps, 1)
        whole_number("max_steps", max_steps, 1)
        whole_number("n_copies", n_copies, 0)
        whole_number("max_memory", max_memory, 1)
        if not isinstance(show_texts, bool):
            raise ValueError(f"show_texts must be true or false, not {show_texts!r}")
        self.benchmarks = benchmarks
        self.wanted = wanted
        self.forced = method is not None
        self.unit: Unit = unit
        self.infill: Infill = infill
        self.baseline: TokenBaseline = baseline
        self.top_k = top_k
        self.n_samples = n_samples
        self.n_steps = n_steps
        self.max_steps = max_steps
        self.n_copies = n_copies
        self.show_texts = show_texts
        self.max_memory = max_memory

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The grades of the explanation and, if displayed, its plausibility and consistency; see the class."""
        language = self.language(model)
        path = (self.benchmarks or {}).get(self.name)
        found = built_in_prompts() if path is None else read_prompts(path)
        prompts = _draw_prompts(found, self.n_samples, rng)
        # Words of other prompts stand in for missing ones where prompts are built alike; elsewhere they would bring in
        # what matters at another place, and it would be taken for the place's own.
        some = rng.permutation(len(prompts))[: 2 * N_INFILL + 1].tolist()
        others = [prompts[i] for i in some] if path is None or self.infill == "prompts" else []
        order = rng.permutation(len(prompts))
        # Ranking a few methods takes fewer prompts than showing that one is faithful.
        cut = max(len(order) // 3, 2)
        first, second = ([prompts[i] for i in np.sort(part).tolist()] for part in (order[:cut], order[cut:]))
        parts = Parts(
            first=self._pose(language, first, others),
            second=self._pose(language, second, others),
            few=self._pose(language, second[:_N_CHECKED], others),
        )
        source = f"{found.source}. {language.notes}"
        reason = _nothing_to_explain(parts)
        if reason:
            nothing = Undefined(reason=reason)
            return [Measurement(metric="faithfulness_gain", estimate=nothing, n_samples=len(second), detail=source)]
        effort = Effort(n_steps=self.n_steps, max_steps=max(self.n_steps, self.max_steps))
        verdict = judge_methods(parts, self._methods(language), rng, effort, self._checks(language), force=self.forced)
        measured = [_of_this_probe(m, self.name) for m in grades_of(verdict, len(prompts))]
        measured[0] = replace(measured[0], detail=f"{measured[0].detail}. {source}")
        measured += self._plausibility(verdict, second, rng)
        measured += self._consistency(verdict, second, language, others, rng, effort)
        if verdict.is_shown and (path is None or self.show_texts):
            at = next(i for i, m in enumerate(measured) if m.figure is None)
            measured[at] = replace(measured[at], figure=_figure(self.name, verdict, second, self.unit))
        return measured

    def language(self, model: AuditedModel) -> AuditedLanguageModel:
        """The model with the requested prefix, or none; with a cache of read texts."""
        return self.weights(model).as_sent().with_prefix_cache()

    def _pose(self, model: AuditedLanguageModel, prompts: Sequence[Prompt], others: Sequence[Prompt]) -> Problem:
        return token_problem(
            model,
            prompts,
            others=others,
            unit=self.unit,
            infill=self.infill,
            baseline=self.baseline,
            max_memory=self.max_memory,
        )

    def _methods(self, model: AuditedLanguageModel) -> list[str]:
        if "auto" not in self.wanted:
            return list(dict.fromkeys(self.wanted))
        return list(_SMALL if model.n_parameters <= _MOST_PARAMETERS else _LARGE)

    def _checks(self, model: AuditedLanguageModel) -> Checks:
        n_copies, why_none = self.n_copies, "n_copies is 0"
        if n_copies is None:
            n_copies = FEWEST_COPIES
            if model.n_parameters > _MOST_PARAMETERS:
                n_copies = 0
                why_none = (
                    f"it has more than {_MOST_PARAMETERS:,}, and copies cost; n_copies = {FEWEST_COPIES} asks for it"
                )
        return Checks(n_copies=n_copies, n_explained=min(n_copies, _N_EXPLAINED), why_none=why_none)

    def _plausibility(self, verdict: Verdict, prompts: Sequence[Prompt], rng: np.random.Generator) -> list[Measurement]:
        annotated = [i for i, p in enumerate(prompts) if p.cues]
        if not annotated:
            return []
        units = verdict.problem.units
        estimate: AnyEstimate = Undefined(reason=_refusal_text(verdict))
        detail = ""
        if verdict.is_shown:
            cue = cue_units(units.names, prompts)
            hits = cue_hits(verdict.explained.values, units.present, cue, self.top_k, rng)[annotated]
            chance = chance_of_a_hit(units.present, cue, self.top_k)[annotated]
            estimate = Proportion(successes=int(hits.sum()), n=len(annotated))
            detail = f"a random attribution would reach {chance.mean():.2g}{_noted(verdict)}"
        return [
            Measurement(
                metric="cue_top_k",
                method=verdict.chosen,
                estimate=estimate,
                n_samples=len(annotated),
                ideal=1.0,
                at={"k": float(self.top_k)},
                detail=detail,
            )
        ]

    def _consistency(
        self,
        verdict: Verdict,
        prompts: Sequence[Prompt],
        model: AuditedLanguageModel,
        others: Sequence[Prompt],
        rng: np.random.Generator,
        effort: Effort,
    ) -> list[Measurement]:
        paired = rng.permutation([i for i, p in enumerate(prompts) if p.paraphrase.strip()])[:_N_REWORDED].tolist()
        if not paired:
            return []
        estimate: BoundedMean | Undefined = Undefined(reason=_refusal_text(verdict))
        detail, n = "", len(paired)
        if verdict.is_shown:
            problem = self._pose(model, [prompts[i].reworded() for i in paired], others)
            reworded = explain(verdict.chosen, problem, rng, effort)
            found = np.asarray(
                [
                    aligned_correlation(own, a, theirs, b)
                    for own, a, theirs, b in zip(
                        (verdict.problem.units.names[i] for i in paired),
                        verdict.explained.values[paired],
                        problem.units.names,
                        reworded.values,
                        strict=True,
                    )
                ]
            )
            kept = found[np.isfinite(found)]
            n = len(kept)
            few = f"no paraphrase shares {_FEWEST_ALIGNED} words with its prompt that are not all alike"
            estimate = bounded_mean(kept, low=-1.0, high=1.0) if n else Undefined(reason=few)
            left = f"; {len(paired) - n:,} paraphrases share too few words" if n < len(paired) else ""
            detail = f"over the words that prompt and paraphrase share{left}{_noted(verdict)}"
        return [
            Measurement(
                metric="paraphrase_consistency",
                method=verdict.chosen,
                estimate=estimate,
                n_samples=n,
                ideal=1.0,
                detail=detail,
            )
        ]


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def cue_units(names: Sequence[Sequence[str]], prompts: Sequence[Prompt]) -> BoolArray:
    """(n, d) the units that are, or belong to, a cue of their prompt, ignoring case."""
    out = np.zeros((len(prompts), len(names[0]) if names else 0), bool)
    for i, (own, prompt) in enumerate(zip(names, prompts, strict=True)):
        # Where each unit stands, found from left to right: units are in the prompt's order.
        spans, at = [], 0
        for name in own:
            start = prompt.prompt.find(name, at) if name else -1
            spans.append((start, start + len(name)) if start >= 0 else (-1, -1))
            at = max(at, spans[-1][1])
        for cue in prompt.cues:
            # Whole words: "he" is no part of "the".
            for found in re.finditer(rf"(?<!\w){re.escape(cue)}(?!\w)", prompt.prompt, re.IGNORECASE):
                out[i] |= [0 <= a < found.end() and b > found.start() for a, b in spans]
    return out


def cue_hits(
    values: FloatArray,
    present: BoolArray,
    cue: BoolArray,
    k: int,
    rng: np.random.Generator,
) -> BoolArray:
    """(n,) whether a cue is among the k units with the largest absolute attribution; ties are broken at random."""
    sizes = np.where(present, np.abs(values), -1.0)
    order = np.lexsort((rng.random(values.shape), -sizes), axis=1)[:, :k]
    return np.asarray(np.take_along_axis(cue & present, order, axis=1).any(axis=1))


def chance_of_a_hit(present: BoolArray, cue: BoolArray, k: int) -> FloatArray:
    """(n,) the probability that k random units of a prompt include a cue (hypergeometric)."""
    from scipy.stats import hypergeom

    m, c = present.sum(axis=1), (cue & present).sum(axis=1)
    return np.asarray(1.0 - hypergeom.pmf(0, m, c, np.minimum(k, m)), np.float64)


def aligned_correlation(first: Sequence[str], a: FloatArray, second: Sequence[str], b: FloatArray) -> float:
    """Spearman's correlation over shared words, matching k-th occurrences; NaN for fewer than three."""
    places = _occurrences(second)
    pairs = [(i, places[key]) for key, i in _occurrences(first).items() if key in places]
    if len(pairs) < _FEWEST_ALIGNED:
        return float("nan")
    left, right = (np.asarray(index) for index in zip(*pairs, strict=True))
    together = np.stack([a[left], b[right]])
    signed = together if (together < 0.0).any() else np.abs(together)
    return float(rank_correlations(signed[:1], signed[1:], np.ones((1, len(pairs)), bool))[0])


def _occurrences(names: Sequence[str]) -> dict[tuple[str, int], int]:
    seen: Counter[str] = Counter()
    found = {}
    for i, name in enumerate(names):
        word = name.strip().casefold()
        if word:
            found[word, seen[word]] = i
            seen[word] += 1
    return found


# ---- what they have in common ----------------------------------------------------------------------------------------


def _draw_prompts(benchmark: Benchmark[Prompt], n_samples: int | None, rng: np.random.Generator) -> list[Prompt]:
    # A prompt that stands twice is one observation.
    prompts = list(dict.fromkeys(benchmark.examples))
    if len(prompts) < _FEWEST_PROMPTS:
        raise NotApplicableError(
            f"There are {len(prompts)} different prompts, and a method is chosen on some and confirmed on others: at "
            f"least {_FEWEST_PROMPTS} are needed, and some 60 to show anything."
        )
    size = min(n_samples or len(prompts), len(prompts))
    chosen: IntArray = np.sort(rng.choice(len(prompts), size=size, replace=False))
    return [prompts[i] for i in chosen.tolist()]


def _nothing_to_explain(parts: Parts) -> str:
    """Why no method could say anything: the score is the same everywhere, or is no number."""
    scores = np.concatenate([np.concatenate(ends(p.units, np.arange(len(p)))) for p in (parts.first, parts.second)])
    if not np.isfinite(scores).all():
        return f"{int((~np.isfinite(scores)).sum()):,} of {scores.size:,} log-probabilities are not finite"
    if not output_range(scores, scores):
        return "the explained log-probability is the same for every prompt and with nothing left of it"
    return ""


def _refusal_text(verdict: Verdict) -> str:
    return f"the explanation was refused: {'; '.join(verdict.reasons)}"


def _noted(verdict: Verdict) -> str:
    return f"; {verdict.hint}" if verdict.hint else ""


def _of_this_probe(measurement: Measurement, name: str) -> Measurement:
    """Its figure under this probe's name, whose parts are a third and the rest."""
    figure = measurement.figure
    if figure is None or figure.table is None:
        return measurement

    def rename_terms(text: str) -> str:
        for old, new in (
            ("ranking half", "ranking third"),
            ("confirming half", "confirming rest"),
            ("on rows", "on prompts"),
        ):
            text = text.replace(old, new)
        return text

    table = replace(figure.table, grades=tuple(map(rename_terms, figure.table.grades)))
    renamed = f"{name}/{figure.id.split('/', 1)[1]}"
    caption, alt = rename_terms(figure.caption), rename_terms(figure.alt)
    said = {"id": renamed, "probe": name, "table": table, "caption": caption, "alt": alt}
    return replace(measurement, figure=figure.model_copy(update=said))


def _figure(name: str, verdict: Verdict, prompts: Sequence[Prompt], unit: Unit) -> Figure:
    """The confirming prompts in colour; what each is asked for, and the score, as title."""
    units, explained = verdict.problem.units, verdict.explained
    titles = []
    for p, score in zip(prompts, explained.outputs.tolist(), strict=True):
        target, foil = p.target.strip()[:_TITLED], p.foil.strip()[:_TITLED]
        what = f"“{target}” rather than “{foil}”" if foil else f"“{target}”" if target else "the likeliest next token"
        odds = f", odds of {np.exp(abs(score)):.2g} to 1 for “{target if score >= 0.0 else foil}”" if foil else ""
        titles.append(f"{what}: {score:+.2f}{odds}")
    words, values = words_and_values(verdict)
    caption = verdict.note
    return text_figure(
        name,
        verdict.chosen,
        words,
        values,
        titles,
        output=units.output,
        spaced=unit == "word",
        caption=caption,
    )
