"""Detectors of speech: front ends against slow ones, training and the bundle."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from auditor.core.errors import DataError
from auditor.data.audio import Samples
from auditor.data.preprocessing import AudioPreprocessing
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.detector import DeepfakeDetector
from auditor.models.networks.detector_networks import Cepstrum, LogSpectrum, SpeechDetector, delta, moments
from auditor.models.saved_models import save
from mitigations.deepfake.media_training import (
    Media,
    TrainingOptions,
    fit_detector,
    read_media,
    train_detector,
)

RATE = 8_000


def sounds(n: int = 3, seconds: float = 0.5, seed: int = 0) -> npt.NDArray[np.float32]:
    """Noise whose level and colour wander."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, int(seconds * RATE))) * np.abs(np.sin(np.linspace(0.3, 9.0, int(seconds * RATE))))
    return np.asarray(0.1 * (noise + 0.7 * np.roll(noise, 1, axis=1)), np.float32)


# ---- front ends ----------------------------------------------------------------------------------------------------


def slow_log_spectrum(x: npt.NDArray[Any], rate: int, n_filters: int) -> npt.NDArray[np.float64]:
    """One recording, frame by frame and filter by filter."""
    x = x.astype(np.float64)
    x = x / np.sqrt(np.mean(x**2))
    window, hop = int(0.02 * rate), int(0.01 * rate)
    n_fft = 1
    while n_fft < window:
        n_fft *= 2

    corners = [rate / 2 * i / (n_filters + 1) for i in range(n_filters + 2)]
    hann = [0.5 - 0.5 * np.cos(2 * np.pi * i / window) for i in range(window)]
    frames = []
    for start in range(0, len(x) - window + 1, hop):
        power = np.abs(np.fft.fft(np.r_[x[start : start + window] * hann, np.zeros(n_fft - window)])) ** 2
        row = []
        for low, mid, high in zip(corners, corners[1:], corners[2:], strict=False):
            total = 0.0
            weights = 0.0
            for k in range(n_fft // 2 + 1):
                f = k * rate / n_fft
                weight = (
                    (f - low) / (mid - low) if low < f <= mid else (high - f) / (high - mid) if mid < f < high else 0
                )
                total += weight * power[k]
                weights += weight
            if not weights:
                total = power[min(range(n_fft // 2 + 1), key=lambda k: abs(k * rate / n_fft - mid))]
            row.append(np.log(total + 1e-9))
        frames.append(row)
    return np.asarray(frames)


@pytest.mark.parametrize("n_filters", [20, 40])
def test_log_spectra_agree_with_the_slow_ones(n_filters: int) -> None:
    x = sounds(2)
    found = LogSpectrum(RATE, n_filters)(torch.from_numpy(x)).numpy()
    for row, sound in zip(found, x, strict=True):
        np.testing.assert_allclose(row, slow_log_spectrum(sound, RATE, n_filters), atol=2e-3)


def test_loudness_changes_nothing() -> None:
    x = torch.from_numpy(sounds())
    front = LogSpectrum(RATE, 20)
    torch.testing.assert_close(front(x), front(0.05 * x), atol=1e-3, rtol=1e-3)


def test_a_short_recording_is_filled_up_to_eight_frames() -> None:
    assert LogSpectrum(RATE, 20)(torch.ones(1, 256)).shape == (1, 8, 20)
    assert LogSpectrum(16_000, 20)(torch.ones(1, 48_000)).shape == (1, 299, 20)


def test_many_recordings_are_taken_in_parts() -> None:
    x = torch.from_numpy(sounds(130, 0.1))
    front = LogSpectrum(RATE, 10)
    torch.testing.assert_close(front(x), torch.stack([front(row[None])[0] for row in x]), atol=1e-4, rtol=1e-4)


def test_cepstra_agree_with_scipy() -> None:
    from scipy.fft import dct

    x = np.random.default_rng(0).normal(size=(2, 7, 40))
    found = Cepstrum(40, 20)(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(found, dct(x, axis=2, norm="ortho")[:, :, :20], atol=1e-5)


def test_slopes_and_moments_are_those_of_the_formula() -> None:
    x = np.random.default_rng(0).normal(size=(2, 9, 3))
    at = lambda t: x[:, min(max(t, 0), 8)]  # noqa: E731
    slow = np.stack([sum(k * (at(t + k) - at(t - k)) for k in (1, 2)) / 10 for t in range(9)], axis=1)
    np.testing.assert_allclose(delta(torch.from_numpy(x)).numpy(), slow, atol=1e-12)
    np.testing.assert_allclose(
        moments(torch.from_numpy(x)).numpy(), np.concatenate([x.mean(axis=1), x.std(axis=1)], axis=1), atol=1e-6
    )


def test_a_line_has_one_slope() -> None:
    line = torch.arange(10.0)[None, :, None] * 0.5
    assert delta(line)[0, 2:-2, 0].tolist() == pytest.approx([0.5] * 6)


# ---- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fake", [0, 1])
def test_the_network_is_differentiable_and_of_its_shapes(fake: int) -> None:
    torch.manual_seed(0)
    made = SpeechDetector(RATE, fake=fake).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.from_numpy(sounds(3)).requires_grad_()
    logits = made(x)
    assert logits.shape == (3, 2)
    assert made.features(x).shape[0] == 3
    torch.testing.assert_close(logits[:, 0], -logits[:, 1])
    logits[:, 1].sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all()) and float(x.grad.abs().max()) > 0


def test_the_synthetic_class_may_be_either() -> None:
    x = torch.from_numpy(sounds())
    first, second = SpeechDetector(RATE, fake=0), SpeechDetector(RATE, fake=1)
    for network in (first, second):
        network.head.weight.data.fill_(0.1)
    torch.testing.assert_close(first(x), second(x).flip(1))


# ---- training ------------------------------------------------------------------------------------------------------


def recordings(n: int = 12, seed: int = 0, seconds: float = 0.5) -> tuple[Samples, list[str], list[str | None]]:
    """Four kinds, n each: noise of two colours is real; noise under a comb or a fixed rhythm is synthetic."""
    rng = np.random.default_rng(seed)
    m = int(seconds * RATE)
    rows, labels, kinds = [], [], []
    for kind in ("ann", "bob", "comb", "beat"):
        for _ in range(n):
            noise = rng.normal(size=m + 40)
            lag = {"ann": 1, "bob": 2, "comb": 8, "beat": 1}[kind]
            x = (noise[40:] + 0.8 * noise[40 - lag : m + 40 - lag]) * (
                1 + 0.3 * np.sin(np.arange(m) / rng.uniform(90, 130))
            )
            if kind == "beat":
                x *= 1 + 0.9 * np.sign(np.sin(np.arange(m) / 40))
            x += 0.1 * rng.normal(size=m)
            rows.append(3000 * x / x.std())
            labels.append("real" if kind in ("ann", "bob") else "fake")
            kinds.append(kind)
    return np.clip(np.stack(rows), -32768, 32767).astype(np.int16), labels, kinds


def made(seed: int = 0) -> DeepfakeDetector:
    X, labels, kinds = recordings()
    return fit_detector(read(X), labels, kinds, TrainingOptions(), np.random.default_rng(seed))


def read(X: Samples) -> Media:
    wanted = AudioPreprocessing(sampling_rate=RATE, samples=X.shape[1])
    with torch.no_grad():
        features = SpeechDetector(RATE).features(torch.from_numpy(wanted.encode(X))).double().numpy()
    return Media(rows=np.arange(len(X)), problems=(), preprocessing=wanted, features=features)


def test_a_detector_is_trained_saved_and_read_back(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    detector = made()
    assert torch.equal(torch.get_rng_state(), before)
    assert detector.classes == ("fake", "real")
    assert (detector.card.medium, detector.card.fake, detector.card.kinds) == ("speech", 0, ("beat", "comb"))
    X, labels, _ = recordings(seed=1)
    chance = detector.predict_proba(X)[:, 0]
    fakes = np.asarray(labels) == "fake"
    assert (chance[fakes][:, None] > chance[~fakes][None]).mean() > 0.95
    save(detector, tmp_path / "d.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "d.pt")))
    assert isinstance(again, DeepfakeDetector)
    assert again.card == detector.card
    assert again.verdicts(X) == detector.verdicts(X)


def test_the_same_seed_makes_the_same_detector() -> None:
    X = recordings(seed=2)[0]
    first, second = made(), made()
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.card == second.card


# ---- from files ----------------------------------------------------------------------------------------------------


def written(folder: Path, X: Samples, labels: list[str], rate: int = RATE) -> list[Path]:
    files = []
    for i, (row, label) in enumerate(zip(X, labels, strict=True)):
        path = folder / label / f"{i:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(row.tobytes())
        files.append(path)
    return files


def test_files_make_the_same_detector_as_their_contents(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    X, labels, kinds = recordings()
    files = written(tmp_path, X, labels)
    found = train_detector("speech", files, labels, kinds, TrainingOptions(seconds=0.5), np.random.default_rng(0))
    np.testing.assert_array_equal(found.predict_proba(X), made().predict_proba(X))
    assert found.preprocessing == AudioPreprocessing(sampling_rate=RATE, samples=X.shape[1])


def test_the_lowest_sampling_rate_is_everybodys(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    X, labels, _ = recordings(n=1, seconds=1.0)
    files = written(tmp_path, X[:2], labels[:2], rate=44_100) + written(tmp_path, X[2:], labels[2:], rate=11_025)
    for some, rate in ((files, 11_025), (files[:2], 16_000)):
        found = read_media("speech", some, TrainingOptions())
        assert found.preprocessing == AudioPreprocessing(sampling_rate=rate, samples=3 * rate)
        assert found.features.shape == (len(some), 80)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'media' is not installed")
    X, labels, kinds = recordings(n=3)
    files = written(tmp_path, X, labels)
    files[4].write_bytes(b"")
    files[7].write_bytes(files[7].read_bytes()[:300])
    found = read_media("speech", files, TrainingOptions())
    assert len(found.features) == 10
    assert found.rows.tolist() == [i for i in range(12) if i not in (4, 7)]
    assert ["empty file" in found.problems[0], "cut short" in found.problems[1]] == [True, True]
    with pytest.raises(DataError, match=r"2 of 12 files cannot be trained on: .*004\.wav.*007\.wav"):
        train_detector("speech", files, labels, kinds, TrainingOptions(), np.random.default_rng(0))
