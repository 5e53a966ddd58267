"""Bounds of a network's output over a box of inputs, including its own rounding errors.

What is bounded is not the network of real arithmetic but what float32 makes of it, in whatever order it sums. A sum of
n products misses the exact one by at most ``gamma (|W| |h| + |b|)``, gamma = n u / (1 - n u) and u the unit roundoff
(Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapter 3), and by what underflows. So each layer has an
unknown error within that, which goes into the bounds as any other input does. All of it is computed in float64, whose
own rounding is 2^-29 of that error for each operation: the hundredth part by which the error is raised holds it, and
what is computed of two numbers is widened by itself. ReLU and maxima are exact, other activations within a few units
in the last place.

Sources: interval bounds: Gowal et al., ICCV 2019; linear bounds backward (CROWN): Zhang et al., NeurIPS 2018; of maxima
and sigmoids: Singh et al., An abstract domain for certifying neural networks, POPL 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from auditor.models.networks.layer_chain import NotASequenceError, PictureMean

_UNIT, _RAISED = 2.0**-24, 1.01
# What is smaller may be taken as 0: operands, products and sums.
_TINY = 2.0**-126
# Sums of magnitudes beyond this may overflow in float32; nothing is said of a row that has one.
_MOST = 1e38
# For sums of squares, so that neither they nor their products with the factors of a norm overflow.
_MOST_SQUARES = 1e30
_DOUBLE = 1e-12
_OF_SIGMOIDS = 2.0**-20
# Numbers in one tensor of slopes: 32 MiB in float64.
_NUMBERS_AT_ONCE = 4_194_304
# And in all of those by which one layer's bounds are tightened, for one row: some tenths of a second.
_WORK = 8_388_608


@dataclass(frozen=True, eq=False)
class Affine:
    """``h -> W h + b`` of rows (m, *taken), with result (m, *made).

    ``times``: W' h of rows h and weights W' of the shape of ``weight``; ``matrix``: whether that is a matrix product;
    ``shift``: b, (1, *made), or (m, *made) where it differs between rows; ``sizes``: the magnitudes that b is the sum
    of; ``terms``: of how many numbers one is made, 0 where nothing is computed; ``mixes``: whether W has more than
    a diagonal; ``operands``: by how much of itself an operand of a product may be rounded before.
    """

    times: Callable[[Tensor, Tensor], Tensor]
    weight: Tensor
    shift: Tensor
    sizes: Tensor
    terms: int
    operands: float
    matrix: bool = False
    mixes: bool = True

    def value(self, h: Tensor) -> Tensor:
        """(m, *made) ``W h + b``."""
        return self.times(h, self.weight) + self.shift

    def spread(self, r: Tensor) -> Tensor:
        """(m, *made) ``|W| r``."""
        return self.times(r, self.weight.abs())

    def error(self, h: Tensor) -> Tensor:
        """(m, *made) the possible float32 error of ``W h + b``, for magnitudes h; infinite if it may overflow."""
        size = self.spread(h) + self.sizes
        if not self.terms:
            return torch.zeros_like(size)
        n = self.terms + 2
        gamma = n * _UNIT / (1.0 - n * _UNIT) if n * _UNIT < 0.5 else math.inf
        relative = (1.0 + gamma) * (1.0 + self.operands) ** 2 - 1.0
        error = relative * size + _TINY * (2 * n + self.spread(torch.ones_like(h[:1])))
        if bool((small := (self.weight != 0.0) & (self.weight.abs() < _TINY)).any()):
            error = error + _TINY * self.times(h, small.to(h))
        return torch.where(size < _MOST, _RAISED * error, torch.inf)

    def back(self, slopes: Tensor, input_shape: torch.Size) -> Tensor:
        """(m, k, *taken) ``slopes W`` of slopes (m, k, *made)."""
        if self.matrix:
            return slopes @ self.weight
        m, k = slopes.shape[:2]
        with torch.enable_grad():
            h = torch.zeros((m * k, *input_shape), dtype=slopes.dtype, requires_grad=True)
            (found,) = torch.autograd.grad(self.times(h, self.weight), h, slopes.flatten(0, 1))
        return found.reshape(m, k, *input_shape)

    def subset(self, rows: Tensor) -> Affine:
        """The layer for some of the rows, if ``shift`` differs between them."""
        return self if len(self.shift) == 1 else replace(self, shift=self.shift[rows], sizes=self.sizes[rows])

    def among(self, inputs: Tensor, free: Tensor) -> Affine:
        """The same function of only the ``free`` columns, with the others fixed at each row of ``inputs``."""
        fixed, weight = inputs[:, ~free], self.weight[:, ~free]
        shift, sizes = F.linear(fixed, weight), F.linear(fixed.abs(), weight.abs())
        return replace(self, weight=self.weight[:, free], shift=self.shift + shift, sizes=self.sizes + sizes)


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines about an activation of inputs (m, *shape) between bounds: ``below x + floor`` and ``above x + top``."""

    below: Tensor
    floor: Tensor
    above: Tensor
    top: Tensor


@dataclass(frozen=True)
class Activation:
    """A monotone elementwise activation: ``relative`` and ``absolute`` float32 rounding error of its result;
    ``straight``: whether it is linear on each side of 0."""

    function: Callable[[Tensor], Tensor]
    lines: Callable[[Tensor, Tensor], Lines]
    relative: float = 0.0
    absolute: float = 0.0
    straight: bool = False

    def open(self, low: Tensor, high: Tensor) -> Tensor:
        """(*shape) the numbers of any row with a kink in their range; all for non-linear activations."""
        return ((low < 0.0) & (high > 0.0)).any(dim=0) if self.straight else torch.ones_like(low[0], dtype=torch.bool)

    def bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the output from bounds of the input."""
        least, most = self.function(low), self.function(high)
        return least - self.missed(least), most + self.missed(most)

    def missed(self, value: Tensor) -> Tensor:
        """The possible float32 error of a result."""
        return self.relative * value.abs() + self.absolute

    def back(self, slopes: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(m, k, *shape) slopes for the input from slopes of the output, and the added constants (m, k)."""
        lines = self.lines(low, high)
        down = slopes.clamp_max(0.0)
        up = slopes - down
        floor, top = lines.floor, lines.top
        if self.relative or self.absolute:
            extra = self.missed(self.function(torch.maximum(low.abs(), high.abs())))
            floor, top = floor - extra, top + extra
        total = _dot(down, top)
        if bool(floor.any()):
            total = total + _dot(up, floor)
        return (up * lines.below.unsqueeze(1)).addcmul_(down, lines.above.unsqueeze(1)), total


@dataclass(frozen=True, eq=False)
class Maximum:
    """Maxima over windows of images (m, channels, h, w); ``layer``: torch's own, which returns the indices."""

    layer: nn.MaxPool2d

    def open(self, low: Tensor, high: Tensor) -> Tensor:
        """(*shape) all inputs: any may be the largest."""
        return torch.ones_like(low[0], dtype=torch.bool)

    def bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the output from bounds of the input; maxima are exact."""
        return self._pooled(low)[0], self._pooled(high)[0]

    def _pooled(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Each window's maximum, and which input of its channel that is."""
        of = self.layer
        found, where = F.max_pool2d(
            h, of.kernel_size, of.stride, of.padding, of.dilation, of.ceil_mode, return_indices=True
        )
        return found, where

    @property
    def _is_disjoint(self) -> bool:
        of = self.layer
        return all(
            k <= s and d == 1 for k, s, d in zip(*map(_pair, (of.kernel_size, of.stride, of.dilation)), strict=True)
        )

    def back(self, slopes: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """As for an activation: a maximum is at least the input with the largest lower bound, and at most that input if
        no other input of its window reaches it."""
        floor, where = self._pooled(low)
        most, alone = self._pooled(high)[0], torch.zeros_like(floor, dtype=torch.bool)
        flat = high.flatten(2)
        if self._is_disjoint:
            others = flat.scatter(2, where.flatten(2), -torch.inf).reshape(high.shape)
            alone = self._pooled(others)[0] <= floor
        up, down = slopes.clamp_min(0.0), slopes.clamp_max(0.0)
        m, k = max(len(slopes), len(high)), slopes.shape[1]
        at = where.flatten(2).unsqueeze(1).expand(m, k, -1, -1)
        onto = (up + down * alone.unsqueeze(1)).flatten(3).expand(at.shape)
        through = torch.zeros((m, k, *flat.shape[1:]), dtype=slopes.dtype).scatter_add(3, at, onto)
        return through.reshape(m, k, *high.shape[1:]), _dot(down * ~alone.unsqueeze(1), most)


@dataclass(frozen=True, eq=False)
class Normalisation:
    """``c s(v)``, ``s(v) = 1 / sqrt(v + eps)``, ``v = mean(c^2)`` within each group: rows (m, groups * n + groups) to
    (m, *shape).

    The input holds the numbers of each group less their mean m, c, and then the means. Linear bounds: s at its tangent
    at the middle of c, and what the second order may add.

    Rounding, with x = c + m, X = max|x|, u and gamma as above. The computed mean is m + e, the computed variance v + f;
    each is within the same bound whether both are sums (of x^2, less the squared mean; or of (x - mean)^2) or moments
    of parts that are merged in any order, as Welford and Chan do and torch does. A merge rounds a mean by at most
    gamma_7 X and averages the errors of its parts, so ``|e| <= E = gamma_7n X`` after n merges at most. The sum of
    squares of a merge is ``(m_b - m_a)^2 n_a n_b / (n_a + n_b)``; these sum to n v, and the errors of the means move
    their root sum of squares by at most ``2 E sqrt(sum of min(n_a, n_b)) <= 2 E sqrt(n log2 n)`` (each number is in
    the smaller part log2 n times at most). So with ``h = 2 E sqrt(log2 n)`` and ``q = mean(x^2)``,
    ``|f| <= 2 sqrt(v) h + 2 h^2 + 4 gamma_n q``; the last term alone holds for sums. A few roundings more per
    number are in gamma_(7n+16) and gamma_(n+16). Where a part has one number, torch takes ``(x - m_a) (x - m)``
    instead, m the mean after it: that misses no more.

    Read against the CPU kernels of about torch 2.10 (RowwiseMoments; sums by channel where channels come last).
    """

    groups: int
    eps: float
    shape: tuple[int, ...]

    def open(self, low: Tensor, high: Tensor) -> Tensor:
        """(groups * n + groups) which inputs bend the result: all but the means, which move only its rounding."""
        return torch.arange(low.shape[1]) < low.shape[1] - self.groups

    def bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of the output from bounds of the input."""
        of = self._ranges(low, high)
        ends = torch.stack([of.low, of.high])
        below, above = (torch.minimum(of.least * ends, of.most * ends), torch.maximum(of.least * ends, of.most * ends))
        least, most = below[0] - of.most * of.missed, above[1] + of.most * of.missed
        return least.reshape(-1, *self.shape), most.reshape(-1, *self.shape)

    def _ranges(self, low: Tensor, high: Tensor) -> _Ranges:
        n = (low.shape[1] - self.groups) // self.groups
        below, above = (h[:, : -self.groups].reshape(len(h), self.groups, n) for h in (low, high))
        means = torch.maximum(low.abs(), high.abs())[:, -self.groups :].unsqueeze(2)
        nearest, farthest = torch.maximum(below, -above).clamp_min(0.0), torch.maximum(below.abs(), above.abs())
        smallest, largest = (h.square().mean(dim=2, keepdim=True) for h in (nearest, farthest))
        size = farthest.amax(dim=2, keepdim=True) + means
        missed = _RAISED * (_gamma(7 * n + 16) * size + 8 * n * _TINY)
        moved = 2.0 * missed * math.sqrt(math.log2(n) + 1.0)
        error = 2.0 * (largest.sqrt() + moved) * moved + 4.0 * _gamma(n + 16) * (largest + means.square())
        error = torch.where(n * size.square() < _MOST_SQUARES, _RAISED * error + 8 * n * _TINY, torch.inf)
        least = (1.0 - 16.0 * _UNIT) * (largest + error + self.eps) ** -0.5
        most = (1.0 + 16.0 * _UNIT) * ((smallest - error).clamp_min(0.0) + self.eps) ** -0.5
        # An error of the variance that has no bound leaves the result none.
        return _Ranges(
            below, above, smallest + self.eps, least, most, error, missed + 16.0 * _UNIT * size + 0.0 * error
        )

    def back(self, slopes: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """As for an activation; slopes of the means are 0."""
        of = self._ranges(low, high)
        middle, reach = (of.low + of.high) / 2.0, (of.high - of.low) / 2.0
        square, spare = (h.square().mean(dim=2, keepdim=True) for h in (middle, reach))
        first = 2.0 * (middle.abs() * reach).mean(dim=2, keepdim=True)
        factor = (square + self.eps) ** -0.5
        slope = 0.5 * factor**3
        # By how much s lies below and above its tangent, in c, and what float32 makes of it.
        rounded = 0.5 * of.most**3 * of.error + 16.0 * _UNIT * of.most
        below, above = slope * spare + rounded, 0.375 * of.smallest**-2.5 * (first + spare).square() + rounded
        each = slopes.reshape(*slopes.shape[:2], self.groups, -1)
        middle, reach, square, first, factor, slope, below, above, most, missed = (
            h.unsqueeze(1) for h in (middle, reach, square, first, factor, slope, below, above, of.most, of.missed)
        )
        # The sum of slopes times c, which all errors of s are multiplied by.
        total = (each * middle).sum(dim=3, keepdim=True)
        moves = (each.abs() * reach).sum(dim=3, keepdim=True)
        lost = torch.maximum(below * (total + moves), above * (moves - total)).clamp_min(0.0)
        lost = lost + slope * first * moves + most * missed * each.abs().sum(dim=3, keepdim=True)
        turned = 2.0 * slope * total
        through = each * factor - turned * middle / middle.shape[3]
        return F.pad(through.flatten(2), (0, self.groups)), (turned * square - lost).sum(dim=(2, 3))


@dataclass(frozen=True, eq=False)
class _Ranges:
    """Of each group (m, groups, n or 1): the ends of c; the ``smallest`` v + eps; the ``least`` and ``most`` computed
    s; the ``error`` of v; and what the result ``missed`` of x by rounding, in units of s."""

    low: Tensor
    high: Tensor
    smallest: Tensor
    least: Tensor
    most: Tensor
    error: Tensor
    missed: Tensor


def _gamma(n: int) -> float:
    return n * _UNIT / (1.0 - n * _UNIT) if n * _UNIT < 0.1 else math.inf


Step = Affine | Activation | Maximum | Normalisation


def _dot(slopes: Tensor, h: Tensor) -> Tensor:
    """(m, k) ``slopes . h`` of slopes (m or 1, k, *shape) and h (m or 1, *shape)."""
    if len(slopes) == 1:
        return h.flatten(1) @ slopes[0].flatten(1).T
    return (slopes.flatten(2) @ h.flatten(1).unsqueeze(2)).squeeze(2)


# ---- the layers of torch -------------------------------------------------------------------------------------------


def steps_of(layers: Sequence[nn.Module], shape: Sequence[int], operands: float) -> tuple[Step, ...]:
    """The layers for rows (m, *shape) in float64. Raises NotASequenceError where one is not known to be bounded.

    ``operands``: by how much of itself an operand of a product may be rounded first, 0 where that is float32 too.
    """
    steps: list[Step] = []
    h = torch.zeros((1, *shape), dtype=torch.float64)
    for layer in layers:
        if isinstance(layer, nn.GroupNorm):
            made = _group_norm(layer, h)
        else:
            made = [_activation(layer) or _affine(layer, h, operands)]
        for step in made:
            h = step.value(h) if isinstance(step, Affine) else step.bounds(h, h)[0]
            steps.append(step)
    return tuple(steps)


def _activation(layer: nn.Module) -> Activation | Maximum | None:
    if isinstance(layer, nn.ReLU):
        return Activation(torch.relu, partial(_of_relu, slope=0.0), straight=True)
    if isinstance(layer, nn.LeakyReLU):
        slope = float(layer.negative_slope)
        if not 0.0 <= slope <= 1.0:
            raise NotASequenceError(f"its LeakyReLU has the slope {slope:g}")
        function = partial(F.leaky_relu, negative_slope=slope)
        return Activation(function, partial(_of_relu, slope=slope), 1e-6, _TINY, straight=True)
    if isinstance(layer, nn.Tanh):
        return Activation(
            torch.tanh, partial(_of_sigmoid, function=torch.tanh, slope=_slope_of_tanh), 0.0, _OF_SIGMOIDS
        )
    if isinstance(layer, nn.Sigmoid):
        lines = partial(_of_sigmoid, function=torch.sigmoid, slope=_slope_of_sigmoid)
        return Activation(torch.sigmoid, lines, 0.0, _OF_SIGMOIDS)
    return Maximum(layer) if isinstance(layer, nn.MaxPool2d) else None


def _affine(layer: nn.Module, h: Tensor, operands: float) -> Affine:
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros((1, 1), dtype=torch.float64)
    if isinstance(layer, nn.Linear) and h.dim() == 2:
        bias = _double(layer.bias, layer.out_features).unsqueeze(0)
        return Affine(F.linear, _double(layer.weight), bias, bias.abs(), layer.in_features, operands, matrix=True)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return _normalised(layer, h, operands)
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return Affine(lambda x, _: x.flatten(1), one, zero, zero, 0, operands, mixes=False)
    if h.dim() != 4:
        raise NotASequenceError(f"nothing bounds its {type(layer).__name__} of inputs of {h.dim() - 1} dimensions")
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        bias = _double(layer.bias, layer.out_channels).reshape(1, -1, 1, 1)
        shape: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        times = partial(F.conv2d, groups=layer.groups, **shape)
        return Affine(times, _double(layer.weight), bias, bias.abs(), layer.weight[0].numel(), operands)
    if isinstance(layer, nn.AvgPool2d) and layer.divisor_override is None:
        high, wide = _pair(layer.kernel_size)
        return Affine(
            lambda x, _: layer.forward(x), one, zero[..., None, None], zero[..., None, None], high * wide + 2, operands
        )
    if isinstance(layer, PictureMean):
        return Affine(lambda x, _: x.mean(dim=(2, 3)), one, zero, zero, h[0, 0].numel() + 2, operands)
    raise NotASequenceError(f"nothing bounds its {type(layer).__name__}")


def _normalised(layer: nn.modules.batchnorm._BatchNorm, h: Tensor, operands: float) -> Affine:
    """Batch norm in evaluation mode: a factor and a shift of each column or channel, made of rounded ones."""
    n, shape = layer.num_features, (1, -1, *[1] * (h.dim() - 2))
    mean, variance = _double(layer.running_mean, n), _double(layer.running_var, n)
    factor = (_double(layer.weight) if layer.affine else torch.ones_like(mean)) / torch.sqrt(variance + layer.eps)
    bias, moved = _double(layer.bias, n), mean * factor
    sizes = (bias.abs() + moved.abs()).reshape(shape)
    return Affine(torch.mul, factor.reshape(shape), (bias - moved).reshape(shape), sizes, 12, operands, mixes=False)


def _group_norm(layer: nn.GroupNorm, h: Tensor) -> Sequence[Step]:
    """Each group less its mean, beside the mean; what that is divided by; and each channel's factor and shift."""
    shape, zero = (1, -1, *[1] * (h.dim() - 2)), torch.zeros((1, 1), dtype=torch.float64)
    bias = _double(layer.bias, layer.num_channels).reshape(shape)
    factor = _double(layer.weight) if layer.affine else torch.ones(layer.num_channels, dtype=torch.float64)
    if layer.eps < 1e-20 or not bool(((factor == 0.0) | ((factor.abs() > 1e-18) & (factor.abs() < 1e12))).all()):
        raise NotASequenceError("its GroupNorm has an epsilon near 0 or a weight that float32 may lose")
    return (
        # What float32 makes of the mean is part of the next.
        Affine(partial(_centred, groups=layer.num_groups), -torch.ones(1, dtype=torch.float64), zero, zero, 0, 0.0),
        Normalisation(layer.num_groups, layer.eps, tuple(h.shape[1:])),
        Affine(torch.mul, factor.reshape(shape), bias, bias.abs(), 12, 0.0, mixes=False),
    )


def _centred(h: Tensor, weight: Tensor, groups: int) -> Tensor:
    grouped = h.reshape(len(h), groups, -1)
    mean = grouped.mean(dim=2, keepdim=True)
    return torch.cat([(grouped + weight * mean).flatten(1), mean.flatten(1)], dim=1)


def _double(weight: Tensor | None, n: int = 0) -> Tensor:
    """Weights in float64, (n,) zeros where there are none."""
    return torch.zeros(n, dtype=torch.float64) if weight is None else weight.detach().cpu().double()


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


# ---- lines about activations ---------------------------------------------------------------------------------------


def _of_relu(low: Tensor, high: Tensor, slope: float) -> Lines:
    """About ``max(x, slope x)``: its chord above; below, the side that is the longer one within the bounds."""
    on, off = low >= 0.0, high <= 0.0
    chord = ((high - slope * low) / (high - low)).where(~(on | off), torch.where(on, 1.0, slope))
    top = ((slope - chord) * low + _DOUBLE * torch.maximum(low.abs(), high.abs())).where(~(on | off), 0.0)
    below = torch.where(on | (~off & (high > -low)), 1.0, slope).to(low)
    return Lines(below, torch.zeros_like(low), chord, top)


def _of_sigmoid(
    low: Tensor, high: Tensor, function: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> Lines:
    """About a function that is convex below 0 and concave above it: its chord, or the lesser slope of the two ends."""
    least, most = function(low), function(high)
    # Any slope below the least one will do, and rounding may have raised it.
    flat = (torch.minimum(slope(low), slope(high)) - 1e-15).clamp_min(0.0)
    wide = high - low > 1e-6
    chord = torch.where(wide, (most - least) / (high - low), flat)
    below, above = torch.where((low >= 0.0) & wide, chord, flat), torch.where((high <= 0.0) & wide, chord, flat)
    extra = _DOUBLE * (1.0 + low.abs() + high.abs())
    return Lines(below, least - below * low - extra, above, most - above * high + extra)


def _slope_of_tanh(x: Tensor) -> Tensor:
    return 1.0 - torch.tanh(x).square()


def _slope_of_sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * torch.sigmoid(-x)


# ---- the network ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Bounded:
    """Bounds of m boxes: (m, k) the ``least`` value of each of k sums of outputs, and the ``slopes`` (m, k, *shape) of
    a function of the inputs below it with that least value."""

    least: Tensor
    slopes: Tensor


def lower_bounds(steps: Sequence[Step], low: Tensor, high: Tensor, sums: Tensor) -> Bounded:
    """Lower bounds of ``sums . outputs`` over boxes.

    low, high (m, *shape) float64; sums (m or 1, k, n_outputs). Bounds of what goes into an activation are the tighter
    ones of the interval bounds and of the linear bounds, layer by layer; of layers so large that these would take
    longest, the interval bounds.
    """
    inside, errors = [(low, high)], list[Tensor | None]()
    for i, step in enumerate(steps):
        below, above = inside[i]
        if isinstance(step, Affine):
            middle, reach = (below + above) / 2.0, (above - below) / 2.0
            error = step.error(torch.maximum(below.abs(), above.abs()))
            value, spread = step.value(middle), step.spread(reach) + error
            inside.append((value - spread, value + spread))
            errors.append(error)
        else:
            if _mixed(steps[:i]):
                wanted = step.open(below, above)
                if i + 1 < len(steps) and isinstance(steps[i + 1], Maximum):
                    # Which is the largest hangs on the bounds of all that may be.
                    wanted |= (above > 0.0).any(dim=0)
                below, above = inside[i] = _tightened(steps[:i], inside, errors, wanted)
            inside.append(step.bounds(below, above))
            errors.append(None)
    return _backward(steps, inside, errors, sums)


@dataclass(frozen=True)
class Size:
    """The size of a network: ``widest``: the most numbers per row after the inputs; ``slopes``: the number of all
    slopes for the bounds of one box, to which the computing time is proportional."""

    widest: int
    slopes: int

    @classmethod
    def from_steps(cls, steps: Sequence[Step], shape: Sequence[int]) -> Size:
        """The size of a network for rows (m, *shape), with every number on both sides of its kink."""
        h, made, slopes = torch.zeros((1, *shape), dtype=torch.float64), [0], 0
        for i, step in enumerate(steps):
            if not isinstance(step, Affine) and _mixed(steps[:i]):
                slopes += 2 * h.numel() * sum(made)
            h = step.value(h) if isinstance(step, Affine) else step.bounds(h, h)[0]
            made.append(h.numel())
        return cls(max(made), slopes + sum(made))


def _mixed(steps: Sequence[Step]) -> bool:
    """Whether interval bounds are loose behind the steps, and were not tightened since.

    Those of one layer are exact, and functions of one number that never fall keep bounds as tight as they were.
    """
    mixing = [isinstance(step, Affine) and step.mixes for step in steps]
    since = next((i for i, step in enumerate(reversed(steps)) if not isinstance(step, Affine)), len(steps))
    return sum(mixing) > 1 and any(mixing[len(steps) - since :])


def _tightened(
    steps: Sequence[Step],
    inside: Sequence[tuple[Tensor, Tensor]],
    errors: Sequence[Tensor | None],
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Bounds of what the steps make, those of the ``mask`` numbers (*shape) by linear bounds too."""
    below, above = (h.flatten(1).clone() for h in inside[len(steps)])
    shape = inside[len(steps)][0].shape
    places = mask.flatten().nonzero().squeeze(1)
    sizes = [h[0].numel() for h, _ in inside]
    if 2 * len(places) * sum(sizes) > _WORK:
        return inside[len(steps)]
    size = max(sizes)
    for some in torch.split(places, max(1, _NUMBERS_AT_ONCE // (2 * size * len(below)))):
        each = F.one_hot(some, below.shape[1]).double().reshape(1, len(some), *shape[1:])
        found = _backward(steps, inside, errors, torch.cat([each, -each], dim=1)).least
        below[:, some] = torch.maximum(below[:, some], found[:, : len(some)])
        above[:, some] = torch.minimum(above[:, some], -found[:, len(some) :])
    return below.reshape(shape), above.reshape(shape)


def _backward(
    steps: Sequence[Step], inside: Sequence[tuple[Tensor, Tensor]], errors: Sequence[Tensor | None], sums: Tensor
) -> Bounded:
    slopes, total = sums, torch.zeros((1, sums.shape[1]), dtype=torch.float64)
    for i in reversed(range(len(steps))):
        step, error, (low, high) = steps[i], errors[i], inside[i]
        if isinstance(step, Affine) and error is not None:
            total = (
                total + _dot(slopes, step.shift.expand(len(step.shift), *error.shape[1:])) - _dot(slopes.abs(), error)
            )
            slopes = step.back(slopes, low.shape[1:])
        elif not isinstance(step, Affine):
            slopes, more = step.back(slopes, low, high)
            total = total + more
    low, high = inside[0]
    return Bounded(total + _dot(slopes.clamp_min(0.0), low) + _dot(slopes.clamp_max(0.0), high), slopes)
