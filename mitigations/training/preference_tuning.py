"""Preference tuning: a language model tuned with LoRA so that counterfactual continuations become equally likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, logsigmoid

from auditor.core.errors import DataError, MissingExtraError, ModelError, NotApplicableError
from auditor.core.rows import FloatArray
from auditor.models.language_model import AuditedLanguageModel, logits_at
from auditor.models.networks.low_rank_adapters import Lora, is_linear, with_adapters
from auditor.models.prefix_trees import Encoded
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice, check_not_negative, check_positive
from auditor.training.training_loop import mixed_precision
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
    from mitigations.training.preference_pairs import PreferencePair


_MAX_GRAD_NORM = 1.0
# The most that the reference's distributions over the anchors may take in memory.
_ANCHOR_BYTES = 512 << 20


# A text, and which of its tokens are to be scored.
Scored = tuple[Encoded, Sequence[int]]


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts for one forward pass: ``ids`` and ``present`` (n, length), padded on the right.

    ``places`` (m, 2): row and column of the token that precedes each scored one; ``targets`` (m,) the scored tokens'
    ids; ``owner`` (m,) which of ``n_texts`` texts each belongs to. Texts that differ in their last token share a row.
    """

    ids: Tensor
    present: Tensor
    places: Tensor
    targets: Tensor
    owner: Tensor
    n_texts: int


def batch_of(texts: Sequence[Scored], pad: int, device: torch.device) -> Batch:
    """The texts as one batch."""
    inputs = [text.ids[:-1] for text, _ in texts]
    row_of = {ids: row for row, ids in enumerate(dict.fromkeys(inputs))}
    length = max(len(ids) for ids in row_of)
    rows = torch.full((len(row_of), length), pad)
    present = torch.zeros_like(rows)
    for ids, row in row_of.items():
        rows[row, : len(ids)] = torch.tensor(ids)
        present[row, : len(ids)] = 1
    flat = [
        (row_of[text.ids[:-1]], place - 1, text.ids[place], i)
        for i, (text, places) in enumerate(texts)
        for place in places
    ]
    places = torch.tensor([(row, column) for row, column, _, _ in flat])
    targets = torch.tensor([target for _, _, target, _ in flat])
    owner = torch.tensor([i for _, _, _, i in flat])
    return Batch(
        rows.to(device), present.to(device), places.to(device), targets.to(device), owner.to(device), len(texts)
    )


def log_distributions(network: nn.Module, batch: Batch) -> Tensor:
    """(m, vocabulary) log-probabilities of every token at the batch's positions, in float32."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.present, "use_cache": False}
    return log_softmax(logits_at(network, inputs, batch.places).float(), dim=-1)


def log_likelihoods(network: nn.Module, batch: Batch) -> Tensor:
    """(n_texts,) sums of the scored tokens' log-probabilities, in nats."""
    each = log_distributions(network, batch).gather(1, batch.targets.unsqueeze(1)).squeeze(1)
    return each.new_zeros(batch.n_texts).index_add(0, batch.owner, each)


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """``-log sigmoid(beta ((log pi(w) - log ref(w)) - (log pi(l) - log ref(l))))``, the mean over pairs.

    ``policy`` and ``reference``: (n, 2) log-likelihoods of the chosen w and the rejected l. Source: Rafailov et al.,
    NeurIPS 2023, equation 7.
    """
    gain = policy - reference
    return -logsigmoid(beta * (gain[:, 0] - gain[:, 1])).mean()


def squared_margin_loss(policy: Tensor) -> Tensor:
    """``(log pi(a) - log pi(b))^2``, the mean over pairs of ``policy`` (n, 2) log-likelihoods."""
    return (policy[:, 0] - policy[:, 1]).square().mean()


def held_mass_loss(policy: Tensor, reference: Tensor) -> Tensor:
    """``(log(pi(a) + pi(b)) - log(ref(a) + ref(b)))^2``, the mean over pairs: keeps the pairs' total probability."""
    return (torch.logsumexp(policy, dim=1) - torch.logsumexp(reference, dim=1)).square().mean()


class Adapter(nn.Module):
    """The LoRA weights of a network, separate so that a checkpoint need not contain the network itself.

    ``steps``: how many have been taken, kept with the weights so that a resumed run knows.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = nn.ParameterList([p for p in network.parameters() if p.requires_grad])
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


def adapted(network: nn.Module, *, rank: int, alpha: float, depth: float = 1.0) -> Any:
    """The network with trainable LoRA (peft) only on the last ``depth``, a share in (0, 1], of its linear layers.

    ``W x + (alpha / rank) B A x`` with A (rank, inputs) drawn from torch's global generator and B (outputs, rank) zero.
    Raises MissingExtraError without peft, ModelError for a network without such layers.
    """
    check_adaptable(network)
    return with_adapters(network, Lora(rank=rank, alpha=alpha), adaptable_layers(network, depth))


def check_adaptable(network: nn.Module) -> None:
    """Raise MissingExtraError without peft, ModelError for a network without linear layers for LoRA."""
    import importlib.util

    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("LoRA needs peft: pip install 'responsible-auditor[tuning]'.")
    if not adaptable_layers(network):
        raise ModelError(
            f"{type(network).__name__} has no linear layer before its last one, so LoRA has nothing to adapt: "
            "preference_tuning is for transformers."
        )


def adaptable_layers(network: nn.Module, depth: float = 1.0) -> list[str]:
    """Names of the last ``depth``, a share in (0, 1], of the linear layers, the output embeddings left out."""
    last: Any = network.get_output_embeddings()  # type: ignore[operator]
    found = [name for name, module in network.named_modules() if module is not last and is_linear(module)]
    return found[len(found) - math.ceil(depth * len(found)) :]


def encoded_pairs(model: AuditedLanguageModel, pairs: Sequence[PreferencePair]) -> list[Scored]:
    """The two texts of every pair in turn, each with the positions of the tokens that end after the prompt.

    Raises DataError where a text is too long or its continuation has no token, ModelError where the tokenizer cannot
    tell the two texts of a pair apart.
    """
    try:
        texts = model.encode([text for pair in pairs for text in pair.texts])
    except NotApplicableError as error:
        raise DataError(f"The pairs do not fit the model: {error}") from None
    found: list[Scored] = []
    for i, text in enumerate(texts):
        pair = pairs[i // 2]
        places = [
            j for j, (s, end) in enumerate(zip(text.scored, text.ends, strict=True)) if s and end > len(pair.prompt)
        ]
        if not places:
            raise DataError(f"The continuation {pair.texts[i % 2][len(pair.prompt) :]!r} has no token to score.")
        found.append((text, places))
    for pair, (first, _), (second, _) in zip(pairs, found[::2], found[1::2], strict=True):
        if first.ids == second.ids:
            raise ModelError(
                f"The tokenizer reads {pair.chosen!r} and {pair.rejected!r} after {pair.prompt[-40:]!r} as the same "
                "tokens, so nothing can be evened out: name pairs that it knows with pairs=FILE and test_pairs=FILE."
            )
    return found


def encoded_sentences(model: AuditedLanguageModel, sentences: Sequence[str]) -> list[Encoded]:
    """The neutral sentences as tokens. Raises ModelError where they do not fit the model."""
    try:
        return model.encode(sentences)
    except NotApplicableError as error:
        raise ModelError(f"The neutral sentences that hold the language do not fit the model: {error}") from None


class PreferenceStep:
    """One step of LoRA weights on a batch of pairs, by ``dpo`` or ``squared_margin`` with its reference terms.

    Called with numbers of pairs (b,), their losses are those of the functions above; ``squared_margin`` adds
    ``reference_weight (held_mass_loss + mean KL(ref || pi))``, the KL over every token of ``anchors_per_step`` anchors.
    The reference is the network as it is when this is made, with the LoRA weights at zero.
    """

    def __init__(
        self,
        network: nn.Module,
        pairs: Sequence[Scored],
        anchors: Sequence[Encoded],
        *,
        learning_rate: float,
        n_steps: int,
        pad: int,
        device: torch.device,
        beta: float | None,
        reference_weight: float,
        ranked: bool,
        anchors_per_step: int = 4,
    ) -> None:
        self.network = network
        self.adapter = Adapter(network)
        self.modules: Sequence[nn.Module] = (self.adapter,)
        self.optimizers: Sequence[torch.optim.Optimizer] = (
            torch.optim.AdamW(self.adapter.parameters(), lr=learning_rate, weight_decay=0.0),
        )
        self.learning_rate = learning_rate
        self.n_steps = n_steps
        self.beta = beta
        self.reference_weight = reference_weight
        self.anchors_per_step = anchors_per_step
        self._pairs, self._pad, self._device = pairs, pad, device
        self.reference = self._reference(len(pairs) // 2)
        if beta is not None and not ranked:
            self._prefer_the_unlikelier()
        held = beta is None and reference_weight > 0.0
        self._anchors = [self._anchor(text) for text in anchors] if held else []
        self._anchor_references = self._anchor_distributions()

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step of the optimizer on the pairs of these numbers."""
        (numbers,) = batch
        (optimizer,) = self.optimizers
        optimizer.zero_grad(set_to_none=True)
        left = max(1.0 - int(self.adapter.steps) / self.n_steps, 0.0)
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * left
        self.adapter.steps += 1
        with mixed_precision(self._device):
            policy = log_likelihoods(self.network, self._batch(numbers.tolist())).view(-1, 2)
            loss = self._loss(policy, self.reference[numbers])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.adapter.parameters(), _MAX_GRAD_NORM)
        optimizer.step()
        return loss.detach()

    def _loss(self, policy: Tensor, reference: Tensor) -> Tensor:
        if self.beta is not None:
            return dpo_loss(policy, reference, self.beta)
        loss = squared_margin_loss(policy)
        if self.reference_weight > 0.0:
            loss = loss + self.reference_weight * (held_mass_loss(policy, reference) + self._divergence())
        return loss

    def _divergence(self) -> Tensor:
        """Mean over tokens of ``KL(ref || pi)`` on some of the anchors, drawn from torch's global generator."""
        drawn = torch.randperm(len(self._anchors))[: self.anchors_per_step].tolist()
        reference = torch.cat([self._anchor_references[i] for i in drawn])
        found = log_distributions(self.network, batch_of([self._anchors[i] for i in drawn], self._pad, self._device))
        return kl_div(found, reference, reduction="batchmean", log_target=True)

    def _batch(self, numbers: Sequence[int]) -> Batch:
        return batch_of([self._pairs[2 * n + side] for n in numbers for side in (0, 1)], self._pad, self._device)

    def _reference(self, n: int) -> Tensor:
        with torch.no_grad(), mixed_precision(self._device):
            parts = [
                log_likelihoods(self.network, self._batch(range(k, min(k + 16, n)))).view(-1, 2)
                for k in range(0, n, 16)
            ]
        return torch.cat(parts)

    def _prefer_the_unlikelier(self) -> None:
        """Puts the text that the reference finds less likely first: what plain DPO is to make likelier."""
        turned = self.reference[:, 0] > self.reference[:, 1]
        self.reference = torch.where(turned.unsqueeze(1), self.reference.flip(1), self.reference)
        pairs = list(self._pairs)
        for n in turned.nonzero().flatten().tolist():
            pairs[2 * n], pairs[2 * n + 1] = pairs[2 * n + 1], pairs[2 * n]
        self._pairs = pairs

    def _anchor(self, text: Encoded) -> Scored:
        return text, [i for i, scored in enumerate(text.scored) if scored]

    def _anchor_distributions(self) -> list[Tensor]:
        found: list[Tensor] = []
        taken = 0
        with torch.no_grad(), mixed_precision(self._device):
            for text, places in self._anchors:
                one = log_distributions(self.network, batch_of([(text, places)], self._pad, self._device))
                taken += one.numel() * one.element_size()
                if taken > _ANCHOR_BYTES and found:
                    break
                found.append(one)
        self._anchors = self._anchors[: len(found)]
        return found


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
        check_choice("method", method, Method)
        if n_pairs < 2:
            raise ValueError("n_pairs must be at least 2")
        if epochs < 1 or batch_size < 1 or rank < 1:
            raise ValueError("epochs, batch_size and rank must be at least 1")
        if learning_rate is not None:
            check_positive("learning_rate", learning_rate)
        check_positive("beta", beta)
        if not 0.0 < depth <= 1.0:
            raise ValueError(f"depth must lie in (0, 1], not {depth!r}")
        check_not_negative("reference_weight", reference_weight)
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
