"""Front ends of speech detectors: mel or linear spectrograms, their cepstra and statistics."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.rows import FloatArray
from auditor.models.networks.dct import dct_basis

Scale = Literal["linear", "mel"]
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
    spaced from 0 to half the sampling rate in hertz (``linear``) or in mel, ``2595 log10(1 + f / 700)``. n_frames:
    ``1 + (samples - window) // hop``, at least 8: what is shorter is filled up with zeros. Sources: Davis and
    Mermelstein 1980 (mel); Sahidullah, Kinnunen and Hanilci, A comparison of features for synthetic speech detection,
    Interspeech 2015 (linear).
    """

    def __init__(self, sampling_rate: int, n_filters: int, scale: Scale = "linear") -> None:
        super().__init__()
        if not (4_000 <= sampling_rate <= 192_000 and 1 <= n_filters <= 256 and scale in ("linear", "mel")):
            raise ValueError("a spectrum has 4,000 to 192,000 hertz and 1 to 256 filters, on a linear or mel scale")
        self.window_length = round(WINDOW_SECONDS * sampling_rate)
        self.hop = round(HOP_SECONDS * sampling_rate)
        self.n_fft = 1 << (self.window_length - 1).bit_length()
        self.window: Tensor
        self.bands: Tensor
        # Saved with the weights: a bundle is built without memory first, and takes all of its tensors from the file.
        self.register_buffer("window", _buffer(np.hanning(self.window_length + 1)[:-1]))
        bands = filter_bank(sampling_rate, self.n_fft, n_filters, scale)
        self.register_buffer("bands", _buffer(bands))

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


def filter_bank(sampling_rate: int, n_fft: int, n_filters: int, scale: Scale) -> FloatArray:
    """(n_fft // 2 + 1, n_filters) heights of triangles of height 1, each from the centre of one neighbour to the other.

    A triangle that lies between two frequencies of the spectrum takes the nearer of them alone.
    """
    frequencies = np.arange(n_fft // 2 + 1) * sampling_rate / n_fft
    top = sampling_rate / 2
    if scale == "mel":
        corners = 700.0 * (
            10.0 ** (np.linspace(0.0, 2595.0 * math.log10(1.0 + top / 700.0), n_filters + 2) / 2595.0) - 1.0
        )
    else:
        corners = np.linspace(0.0, top, n_filters + 2)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    bands = np.clip(np.minimum(rising, falling), 0.0, None)
    for empty in np.flatnonzero(bands.sum(axis=0) == 0.0):
        bands[np.argmin(np.abs(frequencies - centre[empty])), empty] = 1.0
    return np.asarray(bands, np.float64)


def _buffer(values: FloatArray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)
