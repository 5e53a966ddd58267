"""One step of preference tuning: pair log-likelihoods under the tuned and the reference model, and the losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, logsigmoid

from auditor.core.errors import DataError, MissingExtraError, ModelError, NotApplicableError
from auditor.models.language_model import AuditedLanguageModel, logits_at
from auditor.models.networks.low_rank_adapters import Lora, is_linear, with_adapters
from auditor.models.prefix_trees import Encoded
from auditor.training.training_loop import mixed_precision

if TYPE_CHECKING:
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
