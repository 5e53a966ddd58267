"""Attention built of linear layers, for per-row gradients, which torch's single-call attention prevents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class RowwiseAttention(nn.Module):
    """``torch.nn.MultiheadAttention`` with ``batch_first=True``, the same function of the same weights.

    Opacus' own stand-in, ``opacus.layers.DPMultiheadAttention``, mixes heads with positions where ``batch_first`` is
    set (opacus 1.6.0), so that weights trained in it fit no other network.
    """

    def __init__(self, like: nn.MultiheadAttention) -> None:
        super().__init__()
        self.n_heads = like.num_heads
        self.p = like.dropout
        # torch's encoder layers read these of their attention.
        self.batch_first = True
        self._qkv_same_embed_dim = False
        self.in_proj_weight = self.in_proj_bias = None
        width, biased = like.embed_dim, like.in_proj_bias is not None
        self.query, self.key, self.value = (nn.Linear(width, width, bias=biased) for _ in range(3))
        self.out_proj = nn.Linear(width, width, bias=biased)
        self.load_plain(like)

    def load_plain(self, like: nn.MultiheadAttention) -> None:
        """Copy the weights of torch's layer."""
        parts = (self.query, self.key, self.value)
        with torch.no_grad():
            for part, weight in zip(parts, like.in_proj_weight.chunk(3), strict=True):
                part.weight.copy_(weight)
            if like.in_proj_bias is not None:
                for part, bias in zip(parts, like.in_proj_bias.chunk(3), strict=True):
                    part.bias.copy_(bias)
        self.out_proj.load_state_dict(like.out_proj.state_dict())

    def plain_weights(self) -> dict[str, Tensor]:
        """The weights under the names of torch's layer."""
        parts = (self.query, self.key, self.value)
        found = {"in_proj_weight": torch.cat([part.weight.detach() for part in parts])}
        if self.query.bias is not None:
            found["in_proj_bias"] = torch.cat([part.bias.detach() for part in parts])
        return found | {f"out_proj.{k}": v for k, v in self.out_proj.state_dict().items()}

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(n, t, d) queries over (n, s, d) keys and values: (n, t, d), and weights (n, t, s) on request."""
        q, k, v = (
            part(states).view(*states.shape[:2], self.n_heads, -1).transpose(1, 2)
            for part, states in ((self.query, query), (self.key, key), (self.value, value))
        )
        scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
        if attn_mask is not None:
            scores = _masked(
                scores, attn_mask if attn_mask.ndim == 2 else attn_mask.view(len(q), self.n_heads, *attn_mask.shape[1:])
            )
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None, :])
        weights = torch.softmax(scores, dim=3)
        weights = dropout(weights, self.p, self.training)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        if not need_weights:
            return self.out_proj(mixed), None
        return self.out_proj(mixed), weights.mean(dim=1) if average_attn_weights else weights


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (n, heads, t, s) under a mask that broadcasts to them: true is left out, a number is added."""
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.to(scores.dtype)
