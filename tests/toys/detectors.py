"""Pictures whose synthetic ones differ in known ways, and detectors that each look at one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import DetectorCard
from auditor.models.torch_model import TorchModel
from tests.toys.media_files import calibrated

SIDE = 32
CLASSES = ("real", "fake")
GRID = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 2.0 - 1.0
HALVES = np.where(np.arange(SIDE) < SIDE // 2, -1.0, 1.0)[None, :] * np.ones((SIDE, 1))


def pictures(n: int, seed: int = 0, *, members: int = 0) -> AuditData:
    """Pictures of which half are synthetic: darker on the left by 40 where real ones are darker on the right.

    Synthetic ones also have a faint checkerboard (5 of 255), and are brighter by 14 on average, with a standard
    deviation of 15: an area under the curve of 0.745 for brightness alone. The last ``members`` are training files.
    """
    rng = np.random.default_rng(seed)
    fake = np.arange(n + members) % 2 == 1
    sign = np.where(fake, 1.0, -1.0)[:, None, None]
    brightness = 120.0 + 14.0 * fake + 15.0 * rng.standard_normal(n + members)
    values = brightness[:, None, None] + (20.0 * sign + 4.0 * rng.standard_normal((n + members, 1, 1))) * HALVES
    values = values + 5.0 * fake[:, None, None] * GRID + 3.0 * rng.standard_normal((n + members, SIDE, SIDE))
    X = np.clip(np.rint(values), 0, 255).astype(np.uint8)[..., None].repeat(3, axis=3)
    return AuditData.from_arrays(
        X,
        [CLASSES[int(f)] for f in fake],
        classes=CLASSES,
        is_member=np.arange(n + members) >= n if members else None,
    )


def distinct(n: int, seed: int = 0) -> AuditData:
    """n pictures to judge and n training files, no two of which look alike."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(20, 236, (2 * n, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    X = np.clip(np.rint(blocks + 3.0 * rng.standard_normal(blocks.shape)), 0, 255).astype(np.uint8)
    labels = [CLASSES[i % 2] for i in range(2 * n)]
    return AuditData.from_arrays(X, labels, classes=CLASSES, is_member=np.arange(2 * n) >= n)


def copied(n: int, share: float) -> AuditData:
    """The same pictures, the first ``share`` of which are in the training files too."""
    data = distinct(n)
    X = np.asarray(data.X).copy()
    k = int(share * n)
    X[n : n + k] = X[:k]
    return AuditData(X=X, y_true=data.y_true, classes=CLASSES, is_member=data.is_member)


class Looker(nn.Module):
    """(n, 3, 32, 32) pictures in [-1, 1] to (n, 2) logits, by the mean of the pictures times one pattern."""

    def __init__(self, pattern: npt.NDArray[np.float64], strength: float, centre: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("pattern", torch.tensor(pattern, dtype=torch.float32))
        self.strength = nn.Parameter(torch.tensor(strength))
        self.centre = centre
        self.dropout = nn.Dropout(0.5)

    def measured(self, x: Tensor) -> Tensor:
        pattern: Tensor = self.get_buffer("pattern")
        return (x.mean(dim=1) * pattern).mean(dim=(1, 2)) - self.centre

    def forward(self, x: Tensor) -> Tensor:
        z = self.dropout(0.5 * self.strength * self.measured(x))
        return torch.stack([-z, z], dim=1)


def looker(pattern: npt.NDArray[np.float64], strength: float, centre: float = 0.0) -> TorchModel:
    return TorchModel(
        Looker(pattern, strength, centre), classes=CLASSES, preprocessing=ImagePreprocessing(size=(SIDE, SIDE))
    )


def of_halves() -> TorchModel:
    """Looks at what every picture shows plainly, whatever happens to it."""
    return looker(HALVES, 30.0)


def of_grid() -> TorchModel:
    """Looks at the faint checkerboard, which compression takes away."""
    return looker(GRID, 120.0, centre=0.02)


def of_brightness() -> TorchModel:
    """Looks at the brightness, as anybody could."""
    return looker(np.ones((SIDE, SIDE)), 20.0, centre=0.0)


def of_nothing() -> TorchModel:
    """Looks at one corner, which says nothing: the pattern leaves out brightness and halves."""
    pattern = np.zeros((SIDE, SIDE))
    pattern[0, 0], pattern[0, 2] = 1.0, -1.0
    return looker(SIDE * SIDE * pattern, 20.0)


def detector(model: TorchModel, *, error_rate: float = 0.05, seed: int = 9, **more: Any) -> DeepfakeDetector:
    """The model with a card, calibrated on pictures of its own channel."""
    data = pictures(400, seed)
    scores = model.predict_proba(data.X)[:, 1]
    assert data.y_true is not None
    card = DetectorCard(
        **{
            "medium": "image",
            "fake": 1,
            "real_scores": tuple(np.sort(scores[data.y_true == 0]).tolist()),
            "fake_scores": tuple(np.sort(scores[data.y_true == 1]).tolist()),
            "error_rate": error_rate,
            **more,
        }
    )
    return DeepfakeDetector.around(model, card if "channel" in more else calibrated(card))


def saved(data: AuditData, folder: Path, save: Callable[[Any, Path, bool], str]) -> AuditData:
    """The same data with every row in a file of its own; ``save`` writes a picture and returns its file name."""
    import PIL.Image

    assert data.y_true is not None
    names = []
    for i, (row, label) in enumerate(zip(np.asarray(data.X), data.y_true.tolist(), strict=True)):
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        name = save(PIL.Image.fromarray(row), folder / CLASSES[label] / f"{i:04d}", label == 1)
        names.append(str(folder / CLASSES[label] / name))
    return AuditData(X=data.X, y_true=data.y_true, classes=CLASSES, files=np.asarray(names, object))
