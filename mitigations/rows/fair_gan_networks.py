"""FairGAN networks, and their training steps: autoencoder first, then generator and discriminators."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, gumbel_softmax, one_hot
from torch.optim import Adam, Optimizer

_TEMPERATURE = 0.5
_MOMENTA = (0.5, 0.9)
_SMOOTHING = 0.995


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """``columns``: categories of each generated column, the label last; ``n_groups``: of the sensitive features."""

    columns: tuple[int, ...]
    n_groups: int
    embedding: int
    noise: int
    hidden: int

    @property
    def width(self) -> int:
        """Indicators of a row (x, y)."""
        return sum(self.columns)


class Autoencoder(nn.Module):
    """Rows of indicators (n, width) to an embedding and back to logits (n, width), a softmax for each column."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(sizes.width, sizes.embedding), nn.Tanh())
        self.decoder = nn.Linear(sizes.embedding, sizes.width)

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.encoder(rows))
        return logits


class Generator(nn.Module):
    """Noise (n, noise) and groups (n, n_groups) to rows of indicators (n, width), through the decoder.

    As in medGAN, each hidden layer is normalised over the batch and added to what came in. A category of each column is
    drawn from the decoder's softmax, by Gumbel noise with the gradient of its relaxation (straight-through), so that a
    generated row is made of zeros and ones as a real one is.
    """

    def __init__(self, sizes: Sizes, decoder: nn.Linear) -> None:
        super().__init__()
        self.sizes = sizes
        self.first = nn.Linear(sizes.noise + sizes.n_groups, sizes.hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(sizes.hidden, sizes.hidden), nn.BatchNorm1d(sizes.hidden), nn.ReLU())
            for _ in range(2)
        )
        self.last = nn.Sequential(nn.Linear(sizes.hidden, sizes.embedding), nn.Tanh())
        self.decoder = decoder

    def forward(self, groups: Tensor) -> Tensor:
        """Rows (n, width) of groups (n, n_groups); the noise is from torch's global generator."""
        noise = torch.randn(len(groups), self.sizes.noise, device=groups.device)
        h = torch.relu(self.first(torch.cat([noise, groups], dim=1)))
        for block in self.blocks:
            h = h + block(h)
        logits = self.decoder(self.last(h))
        parts = [
            gumbel_softmax(part, tau=_TEMPERATURE, hard=True)
            for part in torch.split(logits, list(self.sizes.columns), dim=1)
        ]
        return torch.cat(parts, dim=1)


class Discriminator(nn.Module):
    """Rows (n, n_inputs) to logits (n, n_outputs)."""

    def __init__(self, n_inputs: int, hidden: int, n_outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, n_outputs),
        )  # fmt: skip

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.layers(rows)
        return logits


class Networks(nn.Module):
    """Generator, D1 (is a row (x, y, s) real?), D2 (of which group is a generated (x, y)?), and their progress.

    D1 also sees the mean of its batch (minibatch averaging, medGAN), against a generator that draws few kinds of rows.
    ``smoothed``: the generator with its weights averaged over the steps, exponentially: what rows are drawn by. The
    generator itself circles around the distribution that it is after.
    """

    def __init__(self, sizes: Sizes, decoder: nn.Linear) -> None:
        super().__init__()
        self.sizes = sizes
        self.generator = Generator(sizes, decoder)
        self.smoothed = copy.deepcopy(self.generator).requires_grad_(False)
        self.real = Discriminator(2 * sizes.width + sizes.n_groups, sizes.hidden, 1)
        self.group = Discriminator(sizes.width, sizes.hidden, sizes.n_groups)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def realness(self, rows: Tensor, groups: Tensor) -> Tensor:
        """(n,) logits of D1."""
        mean = rows.mean(dim=0, keepdim=True).expand_as(rows)
        logits: Tensor = self.real(torch.cat([rows, mean, groups], dim=1))
        return logits.squeeze(1)

    def smooth(self) -> None:
        """Update the averages by one step."""
        own = self.generator.state_dict()
        for name, average in self.smoothed.state_dict().items():
            if average.is_floating_point():
                average.lerp_(own[name], 1.0 - _SMOOTHING)

    def draw(self, groups: Tensor) -> Tensor:
        """Rows (n, width) of groups (n, n_groups), by the averaged weights in evaluation mode."""
        with torch.no_grad():
            rows: Tensor = self.smoothed.eval()(groups)
        return rows


class AutoencoderStep:
    """A step that minimises the cross-entropy of every column of a row given its embedding; rows (b, width)."""

    def __init__(self, network: Autoencoder, sizes: Sizes, learning_rate: float) -> None:
        self.network = network
        self.sizes = sizes
        self.modules: Sequence[nn.Module] = (network,)
        self.optimizers: Sequence[Optimizer] = (Adam(network.parameters(), lr=learning_rate),)

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step; returns the loss, summed over the columns."""
        (rows,) = batch
        (optimizer,) = self.optimizers
        optimizer.zero_grad(set_to_none=True)
        columns = list(self.sizes.columns)
        pairs = zip(torch.split(self.network(rows), columns, dim=1), torch.split(rows, columns, dim=1), strict=True)
        loss = torch.stack([cross_entropy(logits, row) for logits, row in pairs]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()


class FairGanStep:
    """One step of D1, of D2 after ``quiet_steps``, and of the generator, on rows (b, width), groups (b,).

    ``weight``: of D2 in the generator's loss (the paper's lambda). ``penalty``: times the mean squared norm of D1's
    gradient at real rows is added to D1's loss (R1), without which the two go in circles.
    """

    def __init__(
        self, networks: Networks, *, weight: float, quiet_steps: int, learning_rate: float, penalty: float
    ) -> None:
        self.networks = networks
        self.weight = weight
        self.quiet_steps = quiet_steps
        self.penalty = penalty
        self.modules: Sequence[nn.Module] = (networks,)
        self.optimizers: Sequence[Optimizer] = tuple(
            Adam(part.parameters(), lr=learning_rate, betas=_MOMENTA)
            for part in (networks.generator, networks.real, networks.group)
        )

    def __call__(self, batch: Sequence[Tensor]) -> Tensor:
        """One step of each; returns the generator's loss."""
        rows, codes = batch
        networks = self.networks
        groups = one_hot(codes, networks.sizes.n_groups).to(rows.dtype)
        networks.steps += 1
        fair = self.weight > 0.0 and int(networks.steps) > self.quiet_steps
        drawn = networks.generator(groups)
        seen = drawn.detach()
        rows = rows.clone().requires_grad_()
        true, false = networks.realness(rows, groups), networks.realness(seen, groups)
        (slope,) = torch.autograd.grad(true.sum(), rows, create_graph=True)
        regular = self.penalty * slope.square().sum(dim=1).mean()
        self._step(1, _against(true, 1.0) + _against(false, 0.0) + regular)
        if fair:
            self._step(2, _balanced(networks.group(seen), codes))
        loss = _against(networks.realness(drawn, groups), 1.0)
        if fair:
            loss = loss - self.weight * _balanced(networks.group(drawn), codes)
        self._step(0, loss)
        networks.smooth()
        return loss.detach()

    def _step(self, index: int, loss: Tensor) -> None:
        optimizer = self.optimizers[index]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _against(logits: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _balanced(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of which every group in the batch makes up as much, as in the paper's sum over groups."""
    each = torch.bincount(codes, minlength=logits.shape[1]).to(logits.dtype)
    weight = 1.0 / each.clamp_min(1.0)
    losses = cross_entropy(logits, codes, reduction="none") * weight[codes]
    return losses.sum() / (each > 0).sum()
