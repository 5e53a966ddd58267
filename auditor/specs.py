"""What is asked for, as plain data that crosses a pipe to the process that does the work; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which model, and how it may be loaded; the command line's model flags, one field each.

    ``path`` is None only with ``predict``. ``outputs``: None means what the file says, else logits. ``architecture``: a
    key of ARCHITECTURES, or ``package.module:Class`` of the user's own. ``code_folder``: where the user's own modules
    lie; it is put on the import path only where a flag names one of them.
    """

    path: str | None = None
    classes: tuple[str, ...] | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    threshold: float | None = None
    architecture: str | None = None
    architecture_args: dict[str, JsonValue] = field(default_factory=dict)
    predict: str | None = None
    allow_code: bool = False
    trust_pickle: bool = False
    features: tuple[str, ...] | None = None
    device: str = "cpu"
    code_folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which columns of which files are what; the command line's data flags, one field each.

    ``bins``: rules for continuous sensitive features, as in :mod:`auditor.bins`.
    """

    path: str
    train: str | None = None
    target: str | None = None
    positive: str | None = None
    sensitive: tuple[str, ...] = ()
    bins: tuple[str, ...] = ()
    sensitive_file: str | None = None
    join_on: str | None = None
    features: tuple[str, ...] | None = None
    text: str | None = None
    image: str | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """A probe by name, the ``package.module:Class`` it is, and its options."""

    name: str
    target: str
    options: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the measuring process may use: bytes of memory, and seconds for loading and for each probe."""

    memory_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything a measuring process needs to know; ``parent`` is the process it must not outlive."""

    model: ModelSpec
    data: DataSpec | None
    probes: tuple[ProbeSpec, ...]
    seed: int
    limits: Limits
    with_intake: bool = True
    parent: int | None = None
