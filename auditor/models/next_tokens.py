"""The full next-token distribution of a language model at every position of a text."""

from __future__ import annotations

import torch
from torch import Tensor

from auditor.models.gradients import without_gradients
from auditor.models.language_model import AuditedLanguageModel, logits_at
from auditor.models.prefix_trees import Encoded
from auditor.models.torch_model import evaluating


def next_token_log_probabilities(model: AuditedLanguageModel, text: Encoded) -> tuple[Tensor, Tensor]:
    """(n, vocabulary) float32 log-probabilities at the n scored positions of a text, and the actual tokens (n,).

    Of a causal model given all tokens before a place, of a masked one given all others.
    """
    places = [i for i, scored in enumerate(text.scored) if scored]
    ids = torch.tensor([text.ids])
    if model.objective == "causal":
        inputs = {"input_ids": ids.to(model.device)}
        where = torch.tensor([[0, place - 1] for place in places])
    else:
        hidden = ids.repeat(len(places), 1)
        hidden[torch.arange(len(places)), torch.tensor(places)] = int(model.tokenizer.mask_token_id)
        inputs = {"input_ids": hidden.to(model.device)}
        where = torch.tensor([[row, place] for row, place in enumerate(places)])
    with without_gradients(), evaluating(model.module):
        logits = logits_at(model.module, inputs, where.to(model.device)).float()
    return torch.log_softmax(logits, dim=-1).cpu(), torch.tensor([text.ids[i] for i in places])
