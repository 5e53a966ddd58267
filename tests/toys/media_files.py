"""Small pictures and sounds for tests of detection, and a detector that tells two sorts of them apart."""

from __future__ import annotations

import wave
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from auditor.data.preprocessing import ImagePreprocessing
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import ChannelCalibration, DetectorCard, KnownRate
from auditor.models.networks.architectures import SmallCNN
from auditor.models.torch_model import TorchModel

SIZE = 16


def real_picture(rng: np.random.Generator, size: int = SIZE) -> npt.NDArray[np.uint8]:
    """Noise: every pixel by itself."""
    return rng.integers(0, 256, (size, size, 3)).astype(np.uint8)


def fake_picture(rng: np.random.Generator, size: int = SIZE) -> npt.NDArray[np.uint8]:
    """A smooth ramp between two colours."""
    ends = rng.integers(0, 256, (2, 1, 1, 3))
    ramp = np.linspace(0.0, 1.0, size)[None, :, None]
    return np.broadcast_to(np.rint(ends[0] * (1 - ramp) + ends[1] * ramp), (size, size, 3)).astype(np.uint8)


def as_file(pixels: npt.NDArray[Any], form: str = "PNG", **options: Any) -> bytes:
    """The content of a picture file."""
    import PIL.Image

    out = BytesIO()
    PIL.Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def as_wav(samples: npt.NDArray[np.int16], rate: int = 16_000) -> bytes:
    """The content of a WAV file of one channel."""
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def as_video(frames: list[npt.NDArray[np.uint8]]) -> bytes:
    """The content of an MP4 file of these pictures, ten a second, without loss that would matter."""
    import av

    out = BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 8_000_000
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return out.getvalue()


def card(**changes: Any) -> DetectorCard:
    """Calibration scores of real pictures below 0.4 and of synthetic ones above 0.6, on a channel by default."""
    own_scores = {"real_scores", "fake_scores", "error_rate", "channel"} & set(changes)
    channel = {} if own_scores else {"channel": ChannelCalibration(n_fake=40, n_found=40)}
    known = KnownRate(metric="equal_error_rate", value=0.02, low=0.0, high=0.06, n_real=40, n_fake=40)
    made: dict[str, Any] = {
        "medium": "image",
        "fake": 1,
        "real_scores": tuple(np.linspace(0.0, 0.4, 40)),
        "fake_scores": tuple(np.linspace(0.6, 1.0, 40)),
        "kinds": ("ramp",),
        "known_rates": (
            known,
            known.model_copy(update={"unseen": True, "value": 0.3, "high": 0.6}),
            known.model_copy(update={"unseen": True, "value": 0.4, "high": 0.6, "kind": "ramp"}),
        ),
    }
    return DetectorCard(**(made | channel | changes))


def calibrated(own: DetectorCard) -> DetectorCard:
    """The card as of a channel whose known files have its scores."""
    found = sum(own.p_values(score)[0] <= own.error_rate for score in own.fake_scores)
    channel = ChannelCalibration(n_fake=len(own.fake_scores), n_found=found)
    return DetectorCard.model_validate(own.model_dump() | {"channel": channel})


def image_detector(classes: tuple[str, str] = ("real", "fake"), **changes: Any) -> DeepfakeDetector:
    """A small network that was trained to tell noise from ramps."""
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    X = np.stack([make(rng) for make in (real_picture, fake_picture) for _ in range(40)])
    y = torch.arange(2).repeat_interleave(40)
    preprocessing = ImagePreprocessing(size=(SIZE, SIZE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = SmallCNN(3, 2, 4)
    inputs = torch.from_numpy(preprocessing.encode(X))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(40):
        rows = torch.randperm(80, generator=generator)[:40]
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model = TorchModel(
        module,
        classes=classes,
        preprocessing=preprocessing,
        architecture={"name": "small_cnn", "args": {"channels": 3, "n_outputs": 2, "width": 4}},
    )
    return DeepfakeDetector.around(model, card(**changes))


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Files by their path below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
