"""Preference tuning: a language model tuned with LoRA so that counterfactual continuations become equally likely."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from auditor.core.errors import ModelError
from auditor.core.rows import FloatArray
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from mitigations.selection_guide import instead
from mitigations.training.preference_pairs import (
    NeutralText,
    PreferenceSet,
    built_in_pairs,
    neutral_text,
    read_pairs,
    unseen_pairs,
)

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel

Method = Literal["squared_margin", "dpo"]
# Nothing holds the language under dpo, so it takes smaller steps.
_LEARNING_RATE: dict[Method, float] = {"squared_margin": 2e-3, "dpo": 2e-4}


class PreferenceTuning(BaseMitigation):
    """Tune a causal language model with LoRA on pairs of texts that differ in the people they are about.

    With ``pi`` the tuned and ``ref`` the given model, x a prompt and a, b its two continuations:

    - ``squared_margin``: ``(log pi(a|x) - log pi(b|x))^2``, whose least value is at equal likelihood, and
      ``reference_weight`` times what holds the rest: ``(log(pi(a|x) + pi(b|x)) - log(ref(a|x) + ref(b|x)))^2`` and the
      mean ``KL(ref || pi)`` over the tokens of neutral sentences.
    - ``dpo``: ``-log sigmoid(beta (log pi(w|x) / ref(w|x) - log pi(l|x) / ref(l|x)))``, w being the preferred and l the
      other continuation: of built-in pairs the one that the given model finds less likely, of the user's own ``chosen``
      and ``rejected``. It has no end: it goes on past equal likelihood, and nothing holds the rest of the language.

    Either is the mean over a batch of pairs. LoRA is on the later linear layers, never on the output embeddings, and is
    merged into the weights afterwards; dropout is off, and the learning rate falls to 0 in a straight line. The notes
    say what became of the mean ``|log p(a|x) - log p(b|x)|`` over pairs that were not tuned on, with a Student t
    interval over clusters (occupations), and of the perplexity of neutral sentences that were not tuned on
    (``mitigations/data/preference_tuning.toml``).

    method: as above. pairs: a JSON-lines file of the user's own, see
    :func:`~mitigations.training.preference_pairs.read_pairs`; None means ``n_pairs`` of the built-in ones, "she" and
    "he" in sentences about occupations. test_pairs: the same to measure on; None means the built-in unseen occupations
    and templates. epochs, batch_size: passes over the pairs, pairs in a step. rank: of the LoRA matrices, which are
    scaled by 2. depth: share of the linear layers that have them, counted from the last, in (0, 1]: what lies before
    needs no gradient. learning_rate: of AdamW, to begin with; None means 2e-3 for ``squared_margin`` and 2e-4 for
    ``dpo``. beta: above 0, of ``dpo``. reference_weight: at least 0, of ``squared_margin``.

    Raises ModelError for anything but a causal language model with linear layers, or a tokenizer that cannot tell the
    two texts of a pair apart; DataError for pairs that cannot be used; MissingExtraError without peft.

    Sources: Rafailov et al., NeurIPS 2023 (DPO); Hu et al., ICLR 2022 (LoRA); the squared margin is this tool's own.
    """

    name = "preference_tuning"
    pillar = "language"
    goal = "Tune a language model so that texts about one group or another are equally likely"
    citation = "Rafailov et al., NeurIPS 2023; Hu et al., ICLR 2022"
    methods = get_args(Method)
    stage = "in-processing"
    needs = "a causal language model; no rows: the pairs are its own, or a file's"
    needs_rows = False
    writes = "folder"

    def __init__(
        self,
        *,
        method: Method = "squared_margin",
        pairs: str | None = None,
        test_pairs: str | None = None,
        n_pairs: int = 64,
        epochs: int = 4,
        batch_size: int = 8,
        rank: int = 8,
        depth: float = 0.5,
        learning_rate: float | None = None,
        beta: float = 0.1,
        reference_weight: float = 1.0,
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
        if n_pairs < 2:
            raise ValueError("n_pairs must be at least 2")
        if epochs < 1 or batch_size < 1 or rank < 1:
            raise ValueError("epochs, batch_size and rank must be at least 1")
        for option, value in (("learning_rate", learning_rate), ("beta", beta)):
            if value is not None and not (value > 0.0 and math.isfinite(value)):
                raise ValueError(f"{option} must be a positive number, not {value!r}")
        if not 0.0 < depth <= 1.0:
            raise ValueError(f"depth must lie in (0, 1], not {depth!r}")
        if not (reference_weight >= 0.0 and math.isfinite(reference_weight)):
            raise ValueError(f"reference_weight must be a number of at least 0, not {reference_weight!r}")
        self.method: Method = method
        self.pairs = pairs
        self.test_pairs = test_pairs
        self.n_pairs = n_pairs
        self.epochs = epochs
        self.batch_size = batch_size
        self.rank = rank
        self.depth = depth
        self.learning_rate = learning_rate
        self.beta = beta
        self.reference_weight = reference_weight

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new language model with the LoRA weights merged; ``data`` is not used."""
        import copy

        import torch

        from auditor.core.randomness import seeded_globals
        from auditor.models.language_model import AuditedLanguageModel
        from auditor.training.training_loop import Schedule, train
        from mitigations.training.preference_step import (
            PreferenceStep,
            adaptable_layers,
            adapted,
            encoded_pairs,
            encoded_sentences,
        )
        from mitigations.training.retraining import refuse_several_devices

        refuse_several_devices(training, self.name)
        old = tunable(model)
        chosen = read_pairs(self.pairs) if self.pairs is not None else built_in_pairs(self.n_pairs, rng)
        unseen = unseen_pairs() if self.test_pairs is None else replace(read_pairs(self.test_pairs), ranked=False)
        neutral = neutral_text()
        scored, anchors = encoded_pairs(old, chosen.pairs), encoded_sentences(old, neutral.anchors)
        # Found out before the training, not after it.
        encoded_pairs(old, unseen.pairs)
        encoded_sentences(old, neutral.held_out)
        before = measure_margins(old, unseen, neutral)

        device = torch.device(training.device)
        copied = copy.deepcopy(old.module).to(device).eval().requires_grad_(False)
        layers = len(adaptable_layers(copied, self.depth))
        with seeded_globals(rng):
            network = adapted(copied, rank=self.rank, alpha=2.0 * self.rank, depth=self.depth)
        n = len(chosen.pairs)
        batch_size = min(self.batch_size, n)
        step = PreferenceStep(
            network,
            scored,
            anchors,
            learning_rate=self.learning_rate or _LEARNING_RATE[self.method],
            n_steps=self.epochs * math.ceil(n / batch_size),
            pad=int(getattr(old.tokenizer, "pad_token_id", None) or 0),
            device=device,
            beta=self.beta if self.method == "dpo" else None,
            reference_weight=self.reference_weight,
            ranked=chosen.ranked,
        )
        train(
            step,
            (torch.arange(n, device=device),),
            Schedule(epochs=self.epochs, batch_size=batch_size, seed=int(rng.integers(2**62))),
            checkpoint=training.checkpoint,
            fingerprint={"mitigation": self.name, "options": sorted(vars(self).items()), "pairs": chosen.sha256},
            progress=training.progress,
        )
        merged = network.merge_and_unload().requires_grad_(True).eval()
        new = AuditedLanguageModel(
            merged, old.tokenizer, objective="causal", device=old.device, batch_tokens=old.batch_tokens
        )
        n_weights = sum(p.numel() for p in step.adapter.parameters())
        notes = [
            f"{self._objective_text()} on {chosen.said}: {self.epochs} epochs of batches of {batch_size}, LoRA of rank "
            f"{self.rank} on the last {layers} linear layers ({n_weights:,} weights beside {old.n_parameters:,}), "
            "merged.",
            *_comparison_sentences(before, measure_margins(new, unseen, neutral), unseen),
        ]
        return Mitigated(model=new, notes=tuple(notes))

    def _objective_text(self) -> str:
        if self.method == "dpo":
            return f"Direct preference optimization, beta {self.beta:g},"
        return f"Squared margin with target 0, reference weight {self.reference_weight:g},"


def tunable(model: AuditedModel) -> AuditedLanguageModel:
    """The model as a causal language model with LoRA's layers. Raises ModelError or MissingExtraError."""
    from auditor.models.language_model import AuditedLanguageModel
    from mitigations.training.preference_step import check_adaptable

    if not isinstance(model, AuditedLanguageModel):
        raise ModelError(
            f"preference_tuning is for causal language models, and this is a {model.kind.replace('_', ' ')}: "
            f"{instead(model)}."
        )
    if model.objective != "causal":
        raise ModelError(
            "preference_tuning is for causal language models, and this is a masked one or an encoder-decoder: it gives "
            "no likelihood of a continuation to tune."
        )
    check_adaptable(model.module)
    return model


@dataclass(frozen=True, eq=False)
class _Measured:
    """``margins`` (n,): log-odds of each pair's first text; ``nll`` and ``tokens`` (m,) of the neutral sentences."""

    margins: FloatArray
    nll: FloatArray
    tokens: FloatArray

    @property
    def perplexity(self) -> float:
        return math.exp(float(self.nll.sum() / self.tokens.sum()))


def measure_margins(model: AuditedLanguageModel, pairs: PreferenceSet, neutral: NeutralText) -> _Measured:
    """``log p(chosen | prompt) - log p(rejected | prompt)`` of every pair, and how unlikely neutral sentences are."""
    prompts = [pair.prompt for pair in pairs.pairs for _ in (0, 1)]
    texts = [text for pair in pairs.pairs for text in (pair.chosen, pair.rejected)]
    scores, _ = model.continuations(prompts, texts)
    found = model.token_log_probabilities(model.encode(neutral.held_out))
    return _Measured(
        margins=scores[::2] - scores[1::2],
        nll=np.asarray([-np.nansum(p) for p in found]),
        tokens=np.asarray([float(np.isfinite(p).sum()) for p in found]),
    )


def _comparison_sentences(before: _Measured, after: _Measured, pairs: PreferenceSet) -> list[str]:
    """What became of the log-odds and of the perplexity, in sentences."""
    was, now = np.abs(before.margins), np.abs(after.margins)
    clusters = sorted({pair.cluster for pair in pairs.pairs})
    of = np.asarray([clusters.index(pair.cluster) for pair in pairs.pairs])
    sums, sizes = (np.bincount(of, weights=w).astype(np.float64) for w in (now - was, np.ones(len(of))))
    bounds = _interval(sums, sizes)
    over = "no interval, since they are one cluster"
    if bounds is not None:
        over = f"95 % interval [{bounds[0]:+.3f}, {bounds[1]:+.3f}] over {len(clusters)} clusters"
    notes = [
        f"Mean |log-odds| of {pairs.said}: {was.mean():.3f} before, {now.mean():.3f} after; difference "
        f"{now.mean() - was.mean():+.3f}, {over}. With their signs: {before.margins.mean():+.3f} before, "
        f"{after.margins.mean():+.3f} after."
    ]
    turned = float(np.mean(before.margins * after.margins < 0.0))
    if now.mean() > 0.5 * was.mean():
        notes.append(
            f"The mean |log-odds| did not fall by half; in {turned:.0%} of these pairs the preference turned round."
        )
    growth = _interval(after.nll - before.nll, before.tokens)
    assert growth is not None  # the sentences are many
    low, high = (math.expm1(bound) for bound in growth)
    ratio = after.perplexity / before.perplexity - 1.0
    notes.append(
        f"Perplexity of {len(before.nll)} neutral sentences not tuned on: {before.perplexity:.2f} before, "
        f"{after.perplexity:.2f} after; {ratio:+.1%}, 95 % interval [{low:+.1%}, {high:+.1%}]."
    )
    return notes


def _interval(sums: FloatArray, sizes: FloatArray) -> tuple[float, float] | None:
    """Student's 95 % interval of ``sum(sums) / sum(sizes)`` over independent clusters, (n,) each; None below n = 2.

    Standard error by the delta method: ``sd(sums - r sizes) / (sqrt(n) mean(sizes))``. Source: Cochran, Sampling
    Techniques (1977), 6.4.
    """
    from auditor.statistics.means import StudentT

    if len(sums) < 2:
        return None
    r = float(sums.sum() / sizes.sum())
    error = float((sums - r * sizes).std(ddof=1) / (math.sqrt(len(sums)) * sizes.mean()))
    return StudentT(centre=r, standard_error=error, degrees_of_freedom=len(sums) - 1).interval(0.95)
