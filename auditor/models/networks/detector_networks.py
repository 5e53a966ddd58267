"""Networks that detect synthetic images and speech: hand-made features and a calibrated head.

The input is (n, 3, height, width) in [-1, 1], the middle of each picture at its own resolution
(``ImagePreprocessing(fit="crop")`` with mean and std 0.5).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.rows import FloatArray
from auditor.models.output_kind import Outputs


def dct_basis(n: int, n_coefficients: int) -> FloatArray:
    """(n, n_coefficients) the first columns of the orthonormal DCT-II."""
    k = np.arange(n_coefficients)
    basis = np.cos(np.pi / n * (np.arange(n)[:, None] + 0.5) * k) * math.sqrt(2.0 / n)
    basis[:, 0] /= math.sqrt(2.0)
    return np.asarray(basis, np.float64)


MOST_BINS = 64
BLOCK = 8
N_DCT = 2 * (BLOCK * BLOCK - 1)
RESIDUALS = ("h1", "v1", "h2", "v2", "h3", "v3", "h2v2")
N_RESIDUAL = 5 * len(RESIDUALS) + 4
SMALLEST = 16
# Of the power of rounding to whole levels, 1/12: what is less than a hundredth of it is none.
_NO_POWER = 1e-3
_NO_LEVEL = 1e-2


def n_bins(size: int) -> int:
    """The number of rings of the radial spectrum of an image with shorter side ``size``."""
    return min(MOST_BINS, size // 2)


def n_image_features(size: int) -> int:
    """The length of :func:`image_features` for an image with shorter side ``size``."""
    return n_bins(size) + N_DCT + N_RESIDUAL


def image_features(images: Tensor) -> Tensor:
    """(n, 3, height, width) levels to (n, d): radial spectrum, block DCT and residual statistics, side by side."""
    grey = luma(images)
    rings = n_bins(min(images.shape[2:]))
    return torch.cat([radial_spectrum(grey, rings), block_dct(grey), residual_statistics(images, grey)], dim=1)


def luma(images: Tensor) -> Tensor:
    """(n, height, width) brightness as JPEG has it: 0.299 R + 0.587 G + 0.114 B."""
    return 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]


def radial_spectrum(grey: Tensor, rings: int) -> Tensor:
    """(n, height, width) to (n, rings): log of the mean power over each ring of spatial frequencies.

    ``log(mean over ring of |FFT(w (x - mean))|^2 / sum w^2 + 0.001)`` with a Hann window w. Rings are of equal width in
    frequency from 0 to the corner of the spectrum, the zero frequency is left out. Source: Durall, Keuper and Keuper,
    Watch your up-convolution: CNN based generative deep neural networks are failing to reproduce spectral
    distributions, CVPR 2020.
    """
    n, height, width = grey.shape
    window = torch.outer(_hann(height, grey), _hann(width, grey))
    centred = grey - grey.mean(dim=(1, 2), keepdim=True)
    spectrum = torch.fft.rfft2(centred * window)
    power = (spectrum.real.square() + spectrum.imag.square()) / window.square().sum()
    y = torch.fft.fftfreq(height, device=grey.device)
    x = torch.fft.rfftfreq(width, device=grey.device)
    radius = (y.square()[:, None] + x.square()).sqrt()
    ring = (radius * (rings / math.sqrt(0.5))).long().clamp_max(rings - 1)
    # Half of the spectrum is held: every column but the first, and the last of an even width, stands for two.
    twice = torch.full_like(radius, 2.0)
    twice[:, 0] = 1.0
    if width % 2 == 0:
        twice[:, -1] = 1.0
    twice[0, 0] = 0.0
    place = ring.flatten()
    total = torch.zeros(n, rings, dtype=grey.dtype, device=grey.device)
    total = total.index_add(1, place, (power * twice).flatten(1))
    count = torch.zeros(rings, dtype=grey.dtype, device=grey.device).index_add(0, place, twice.flatten().to(grey.dtype))
    return torch.log(total / count.clamp_min(1.0) + _NO_POWER)


def _hann(n: int, like: Tensor) -> Tensor:
    return torch.hann_window(n, periodic=False, dtype=like.dtype, device=like.device)


def block_dct(grey: Tensor) -> Tensor:
    """(n, height, width) to (n, 126): how large and how heavy-tailed each coefficient of the 8 x 8 block DCT is.

    For each of the 63 coefficients c but the mean, over all whole blocks: ``log(mean |c| + 0.01)``, then for each
    ``log(mean c^2 + 0.0001) - 2 log(mean |c| + 0.01)``. The DCT is orthonormal, of type II. Source: Frank et al.,
    Leveraging frequency analysis for deep fake image recognition, ICML 2020, there over the whole image.
    """
    n, height, width = grey.shape
    rows, columns = height // BLOCK, width // BLOCK
    cut = grey[:, : rows * BLOCK, : columns * BLOCK].reshape(n, rows, BLOCK, columns, BLOCK)
    blocks = cut.transpose(2, 3).reshape(n, rows * columns, BLOCK * BLOCK)
    one = dct_basis(BLOCK, BLOCK)
    both = torch.from_numpy(np.kron(one, one)[:, 1:]).to(grey)
    coefficients = blocks @ both
    size = torch.log(coefficients.abs().mean(dim=1) + _NO_LEVEL)
    power = torch.log(coefficients.square().mean(dim=1) + _NO_LEVEL**2)
    return torch.cat([size, power - 2.0 * size], dim=1)


def residual_statistics(images: Tensor, grey: Tensor) -> Tensor:
    """(n, 3, height, width) and (n, height, width) to (n, 39): statistics of seven of the SRM's linear residuals.

    Residuals are differences of first, second and third order across and down, and of second order both ways (the
    3 x 3 square kernel). Of each, on the brightness: ``log(mean |r| + 0.01)``; ``log(mean r^2 + 0.0001) - 2 log(mean
    |r| + 0.01)``; ``log(mean r^4 + 1e-8) - 2 log(mean r^2 + 0.0001)``;
    ``mean r r' / (mean r^2 + 0.0001)`` with r' the residual one pixel to the right, and one down. Of ``h2v2`` and of
    ``h1`` the same between red and green and between green and blue, over the geometric mean of their mean squares,
    each plus 0.0001.
    Source of the residuals: Fridrich and Kodovsky, Rich models for steganalysis of digital images, IEEE Transactions
    on Information Forensics and Security 7 (2012).
    """
    found = []
    for r in _residuals(grey).values():
        n = r.shape[1] * r.shape[2]
        # Norms need no copy of the picture, and copies are what takes the time here.
        power = torch.linalg.vector_norm(r, dim=(1, 2)).square() / n
        fourth = torch.linalg.vector_norm(r.square(), dim=(1, 2)).square() / n
        log_size = torch.log(r.abs().mean(dim=(1, 2)) + _NO_LEVEL)
        log_power = torch.log(power + _NO_LEVEL**2)
        found += [
            log_size,
            log_power - 2.0 * log_size,
            torch.log(fourth + _NO_LEVEL**4) - 2.0 * log_power,
            _correlation(r[:, :, :-1], r[:, :, 1:], power + _NO_LEVEL**2),
            _correlation(r[:, :-1], r[:, 1:], power + _NO_LEVEL**2),
        ]
    for name in ("h2v2", "h1"):
        red, green, blue = (residual(images[:, c], name) for c in range(3))
        powers = [r.square().mean(dim=(1, 2)) + _NO_LEVEL**2 for r in (red, green, blue)]
        found += [
            _correlation(red, green, (powers[0] * powers[1]).sqrt()),
            _correlation(green, blue, (powers[1] * powers[2]).sqrt()),
        ]
    return torch.stack(found, dim=1)


def _residuals(grey: Tensor) -> dict[str, Tensor]:
    """Those of ``RESIDUALS``, each from the one of a lower order."""
    found: dict[str, Tensor] = {}
    for direction in "hv":
        found[f"{direction}1"] = residual(grey, f"{direction}1")
        found[f"{direction}2"] = residual(found[f"{direction}1"], f"{direction}1")
        found[f"{direction}3"] = residual(found[f"{direction}2"], f"{direction}1")
    found["h2v2"] = residual(found["h2"], "v2")
    return {name: found[name] for name in RESIDUALS}


def residual(grey: Tensor, name: str) -> Tensor:
    """(n, height', width') high-pass residual: ``h2v1`` differs twice across, then once down."""
    for direction, order in zip(name[::2], name[1::2], strict=True):
        for _ in range(int(order)):
            grey = grey[:, :, 1:] - grey[:, :, :-1] if direction == "h" else grey[:, 1:] - grey[:, :-1]
    return grey


def _correlation(a: Tensor, b: Tensor, power: Tensor) -> Tensor:
    """(n,) mean product of two (n, height, width) over their mean square (n,)."""
    return (a * b).mean(dim=(1, 2)) / power


WINDOW_SECONDS = 0.02
HOP_SECONDS = 0.01
# Beside a recording of mean square 1: below it, logarithms would tell rounding apart.
_FLOOR = 1e-9
_DELTA_WIDTH = 2
_FEWEST_FRAMES = 8
# Recordings whose spectra are held at once.
_AT_ONCE = 64


class LogSpectrum(nn.Module):
    """(n, samples) sound to (n, n_frames, n_filters) log power in triangular bands.

    Each recording is first divided by its root mean square, so that loudness tells nothing. Frames of 20 ms every 10 ms
    under a Hann window; power spectrum ``|FFT|^2``; ``log(bands . power + 1e-9)``, with bands whose corners are evenly
    spaced from 0 to half the sampling rate in hertz. n_frames: ``1 + (samples - window) // hop``, at least 8: what is
    shorter is filled up with zeros. Source: Sahidullah, Kinnunen and Hanilci, A comparison of features for synthetic
    speech detection, Interspeech 2015.
    """

    def __init__(self, sampling_rate: int, n_filters: int) -> None:
        super().__init__()
        if not (4_000 <= sampling_rate <= 192_000 and 1 <= n_filters <= 256):
            raise ValueError("a spectrum has 4,000 to 192,000 hertz and 1 to 256 filters")
        self.window_length = round(WINDOW_SECONDS * sampling_rate)
        self.hop = round(HOP_SECONDS * sampling_rate)
        self.n_fft = 1 << (self.window_length - 1).bit_length()
        self.window: Tensor
        self.bands: Tensor
        # Saved with the weights: a bundle is built without memory first, and takes all of its tensors from the file.
        self.register_buffer("window", _buffer(np.hanning(self.window_length + 1)[:-1]))
        self.register_buffer("bands", _buffer(filter_bank(sampling_rate, self.n_fft, n_filters)))

    def forward(self, x: Tensor) -> Tensor:
        short = self.window_length + (_FEWEST_FRAMES - 1) * self.hop - x.shape[1]
        if short > 0:
            x = nn.functional.pad(x, (0, short))
        power = torch.cat([self._power(part) for part in torch.split(x, _AT_ONCE)])
        return torch.log(power + _FLOOR)

    def _power(self, x: Tensor) -> Tensor:
        level = x.square().mean(dim=1, keepdim=True).add(1e-12).sqrt()
        frames = (x / level).unfold(1, self.window_length, self.hop) * self.window
        spectrum = torch.fft.rfft(frames, self.n_fft)
        power: Tensor = (spectrum.real.square() + spectrum.imag.square()) @ self.bands
        return power


class Cepstrum(nn.Module):
    """(n, n_frames, n_filters) log spectrum to (n, n_frames, n_coefficients): its orthonormal DCT-II over the bands."""

    def __init__(self, n_filters: int, n_coefficients: int) -> None:
        super().__init__()
        if not 1 <= n_coefficients <= n_filters:
            raise ValueError(f"{n_coefficients} coefficients of {n_filters} filters do not exist")
        self.basis: Tensor
        self.register_buffer("basis", _buffer(dct_basis(n_filters, n_coefficients)))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.basis


def delta(x: Tensor) -> Tensor:
    """(n, n_frames, d) slopes over time: ``sum over k = 1, 2 of k (x[t + k] - x[t - k]) / 10``, edges repeated.

    Source: Furui, Speaker-independent isolated word recognition, 1986.
    """
    w = _DELTA_WIDTH
    padded = torch.cat([x[:, :1].expand(-1, w, -1), x, x[:, -1:].expand(-1, w, -1)], dim=1)
    n = x.shape[1]
    total = sum((k * (padded[:, w + k : w + k + n] - padded[:, w - k : w - k + n]) for k in range(1, w + 1)), x * 0)
    return total / (2 * sum(k * k for k in range(1, w + 1)))


def moments(x: Tensor) -> Tensor:
    """(n, 2 d) means and standard deviations over time of (n, n_frames, d)."""
    spread = x.var(dim=1, correction=0).add(1e-10).sqrt()
    return torch.cat([x.mean(dim=1), spread], dim=1)


def filter_bank(sampling_rate: int, n_fft: int, n_filters: int) -> FloatArray:
    """(n_fft // 2 + 1, n_filters) heights of triangles of height 1, each from the centre of one neighbour to the other.

    A triangle that lies between two frequencies of the spectrum takes the nearer of them alone.
    """
    frequencies = np.arange(n_fft // 2 + 1) * sampling_rate / n_fft
    corners = np.linspace(0.0, sampling_rate / 2, n_filters + 2)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    bands = np.clip(np.minimum(rising, falling), 0.0, None)
    for empty in np.flatnonzero(bands.sum(axis=0) == 0.0):
        bands[np.argmin(np.abs(frequencies - centre[empty])), empty] = 1.0
    return np.asarray(bands, np.float64)


def _buffer(values: FloatArray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


class HeadOnFeatures(nn.Module):
    """Files to (n, 2) logits: a ``head`` on :meth:`features`."""

    output_kind: ClassVar[Outputs] = "logits"
    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the input features of the head for each file."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


class LinearHead(nn.Module):
    """(n, n_features) features to (n, 2) logits in class order: logistic regression with Platt calibration.

    ``z = weight . (x - mean) / scale + bias``, then ``t = slope z + offset``, the log-odds of the synthetic class,
    given as logits ``-t / 2`` and ``t / 2`` so that either class has a gradient. ``fake``: its index, 0 or 1.
    """

    def __init__(self, n_features: int, fake: int = 1) -> None:
        super().__init__()
        if fake not in (0, 1):
            raise ValueError("the synthetic class of a detector is 0 or 1")
        self.fake = fake
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))
        self.weight = nn.Parameter(torch.zeros(n_features))
        self.bias = nn.Parameter(torch.zeros(()))
        self.calibration = Calibration(fake)

    def scores(self, features: Tensor) -> Tensor:
        """(n,) uncalibrated log-odds z of the synthetic class."""
        standard = (features - self.mean) / self.scale
        return standard @ self.weight + self.bias

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.calibration(self.scores(features))
        return logits


class Calibration(nn.Module):
    """(n,) scores to (n, 2) logits in class order, by Platt's ``slope z + offset`` for the synthetic class ``fake``.

    Source: Platt, Probabilistic outputs for support vector machines, 1999.
    """

    def __init__(self, fake: int = 1) -> None:
        super().__init__()
        self.fake = fake
        self.slope: Tensor
        self.offset: Tensor
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, scores: Tensor) -> Tensor:
        half = 0.5 * (self.slope * scores + self.offset)
        pair = [-half, half] if self.fake == 1 else [half, -half]
        return torch.stack(pair, dim=1)


def levels(x: Tensor) -> Tensor:
    """Encoded images as levels of 0 to 255."""
    return torch.add(x.new_full((), 127.5), x, alpha=127.5)


class FrequencyDetector(HeadOnFeatures):
    """Radial spectrum, block DCT and residual statistics under a linear head: (n, 3, size, size) to (n, 2) logits.

    ``fake``: index of the synthetic class. ``n_groups``: as earlier versions wrote it.
    """

    def __init__(self, size: int, n_groups: int = 0, fake: int = 1) -> None:
        super().__init__()
        self.head: LinearHead = LinearHead(n_image_features(size), fake)

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the numbers of :func:`~auditor.models.networks.detector_networks.image_features`."""
        return image_features(levels(x))


class SpeechDetector(HeadOnFeatures):
    """Means and standard deviations of LFCC and their slopes, weighed by logistic regression.

    (n, samples) sound in [-1, 1] to (n, 2) calibrated logits in class order. ``fake``: index of the synthetic class.
    ``n_kinds``: as earlier versions wrote it. Source: Sahidullah, Kinnunen
    and Hanilci, A comparison of features for synthetic speech detection, Interspeech 2015.
    """

    def __init__(
        self,
        sampling_rate: int,
        n_kinds: int = 0,
        fake: int = 1,
        n_filters: int = 40,
        n_coefficients: int = 20,
    ) -> None:
        super().__init__()
        self.spectrum = LogSpectrum(sampling_rate, n_filters)
        self.cepstrum = Cepstrum(n_filters, n_coefficients)
        self.head: LinearHead = LinearHead(4 * n_coefficients, fake)

    def features(self, x: Tensor) -> Tensor:
        """(n, 4 n_coefficients) means and standard deviations over time of the cepstra and their slopes."""
        static = self.cepstrum(self.spectrum(x))
        return moments(torch.cat([static, delta(static)], dim=2))
