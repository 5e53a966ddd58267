"""Media rows for two models at once: the inputs of both for the same file, side by side in one array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import ModelError
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, Preprocessing

Media = ImagePreprocessing | AudioPreprocessing
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PairedRows:
    """The array layout of the inputs of two models of one medium.

    Pictures, (n, height, width, channels) uint8: the channels of the first, then those of the second, each from the
    upper left corner of the larger height and width. Sound, (n, samples) int16: the first, then the second. Where both
    read a file alike, the array is what either reads.
    """

    first: Media
    second: Media

    @classmethod
    def from_preprocessing(cls, first: Preprocessing | None, second: Preprocessing | None) -> PairedRows:
        """A pair of models; ModelError if their media differ."""
        for media in (ImagePreprocessing, AudioPreprocessing):
            if isinstance(first, media) and isinstance(second, media):
                return cls(first, second)
        raise ModelError(
            f"The two models do not take the same medium: one takes {_medium(first)}, the other {_medium(second)}."
        )

    @property
    def has_same_input(self) -> bool:
        """Whether both read the same of a file."""
        return _input_key(self.first) == _input_key(self.second)

    def join(self, first: Array, second: Array) -> Array:
        """The joint array of the first model's input, (n, ...), and the second model's, (n, ...)."""
        if self.has_same_input:
            return first
        if isinstance(self.first, AudioPreprocessing) or isinstance(self.second, AudioPreprocessing):
            return np.concatenate([first, second], axis=1)
        (h1, w1), (h2, w2) = self.first.size, self.second.size
        c1, c2 = first.shape[3], second.shape[3]
        out = np.zeros((len(first), max(h1, h2), max(w1, w2), c1 + c2), np.uint8)
        out[:, :h1, :w1, :c1] = first
        out[:, :h2, :w2, c1:] = second
        return out

    def split(self, X: Array) -> tuple[Array, Array]:
        """The inputs of both models from a joint array."""
        if self.has_same_input:
            return X, X
        if isinstance(self.first, AudioPreprocessing) or isinstance(self.second, AudioPreprocessing):
            n = self.first.samples if isinstance(self.first, AudioPreprocessing) else 0
            return X[:, :n], X[:, n:]
        (h1, w1), (h2, w2), c1 = self.first.size, self.second.size, len(self.first.mean)
        return X[:, :h1, :w1, :c1], X[:, :h2, :w2, c1:]


def _medium(preprocessing: Preprocessing | None) -> str:
    return "input that its file does not describe" if preprocessing is None else f"{preprocessing.kind} rows"


def _input_key(media: Media) -> object:
    """Everything that decides what of a file is read; colours are scaled later."""
    return media.model_dump(exclude={"mean", "std"}), len(getattr(media, "mean", ()))
