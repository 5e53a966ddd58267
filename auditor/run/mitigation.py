"""The mitigation interface: a model in, a new model out, and a record of the changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from auditor.judging.measurement import Pillar
from auditor.run.probe import construct

if TYPE_CHECKING:
    from pathlib import Path

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.training.multi_device import Devices

Stage = Literal["pre-processing", "in-processing", "post-processing"]
Writes = Literal["bundle", "folder"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Mitigated:
    """The new model, and notes on its creation, such as epsilon or a randomised decision."""

    model: AuditedModel
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Experience:
    """Benchmark results of a mitigation with default options, on held-out rows of real data sets.

    ``better``: data sets on which it was shown better than doing nothing; ``worse``: where its gap was larger on
    average, or accuracy lower without a smaller gap; ``cost``: where it narrowed the gap at more than 2 points of
    accuracy; ``equal``: where none of these was seen.
    ``refused``: those for which it made no model. ``peers``: how it stood beside another tool's, a sentence each.
    ``when``: date and extent of the measurement.
    """

    when: str
    better: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    cost: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()

    def describe(self) -> str:
        """The results in words, for a list."""
        parts = (
            ("better than doing nothing", self.better),
            ("worse than doing nothing", self.worse),
            ("a smaller gap for more than 2 points of accuracy", self.cost),
            ("neither shown", self.equal),
            ("refused", self.refused),
        )
        said = "; ".join(f"{word} on {', '.join(where)}" for word, where in parts if where)
        return ". ".join((said, *self.peers, self.when))

    def warning(self) -> str | None:
        """A warning to users before they choose it, or None."""
        told = [
            f"{word} on {', '.join(where)}"
            for word, where in (("worse than doing nothing", self.worse), ("costly in accuracy", self.cost))
            if where
        ]
        if not told:
            return None
        return (
            f"With its default options this was {' and '.join(told)} ({self.when}): see `auditor mitigate list NAME`."
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training settings of mitigations: the device, the checkpoint, and the progress callback.

    ``devices``: those of a job of several processes, from ``auditor.training.multi_device.devices_of_job()``;
    ``device`` is then its ``device``. Every process makes the same model, and one of them should save it.
    """

    device: str = "cpu"
    checkpoint: Path | None = None
    progress: Callable[[str], None] | None = None
    devices: Devices | None = None


class Mitigation(Protocol):
    """A repair of a model; its success is determined by an audit.

    The constructor only stores keyword options.

    ``name``: its key in the table. ``goal``: what it is for, in one sentence. ``methods``: its ways, named as
    published. ``stage``: where in a model's making it acts. ``needs``: what it cannot do without, in words.

    Two more may be declared: ``needs_rows = False`` by one that brings its own rows, and ``writes = "folder"`` by one
    whose new model is a Hugging Face folder; see :func:`needs_rows` and :func:`writes`. ``learns = False`` by one that
    is made without any rows and yet audited on them; see :func:`learns`; ``keeps_kind = False`` by one that may put
    something around the model, see :func:`keeps_kind`. Such a one may have a method
    ``seen(model, data) -> tuple[str, ...]``, notes on what the new model did with the rows it is audited on.
    ``experience`` says how it did on real data; see :class:`Experience`.
    """

    name: ClassVar[str]
    pillar: ClassVar[Pillar]
    goal: ClassVar[str]
    citation: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    stage: ClassVar[Stage]
    needs: ClassVar[str]

    def __init__(self, **options: Any) -> None: ...

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model, made with the training rows ``data``; the old one is unchanged.

        Same ``rng``, same model.

        Raises UsageError, ModelError or DataError before any training starts where it cannot be done.
        """
        ...


class BaseMitigation(Mitigation):
    """A mitigation with the types of its attributes declared; it takes no options unless it has an ``__init__``."""

    needs_rows: ClassVar[bool]
    learns: ClassVar[bool]
    keeps_kind: ClassVar[bool]
    writes: ClassVar[Writes]

    def __init__(self) -> None: ...


def needs_rows(kind: type[Mitigation]) -> bool:
    """Whether a mitigation learns from the user's training rows: yes unless it declares ``needs_rows = False``."""
    return bool(getattr(kind, "needs_rows", True))


def learns(kind: type[Mitigation]) -> bool:
    """Whether rows given to it change its result: yes unless it declares ``learns = False``."""
    return bool(getattr(kind, "learns", True))


def experience_of(kind: type[Mitigation]) -> Experience | None:
    """The benchmark results of a mitigation, if it declares them."""
    found: Experience | None = getattr(kind, "experience", None)
    return found


def keeps_kind(kind: type[Mitigation]) -> bool:
    """Whether its new model has the old one's format: yes unless post-processing or declared otherwise."""
    return bool(getattr(kind, "keeps_kind", kind.stage != "post-processing"))


def writes(kind: type[Mitigation]) -> Writes:
    """The format of its new model: a bundle unless it declares ``writes = "folder"``."""
    found: Writes = getattr(kind, "writes", "bundle")
    return found


def make_mitigation(kind: type[Mitigation], options: Mapping[str, object]) -> Mitigation:
    """Construct a mitigation with options; ConfigError names the most similar option, or the bad value."""
    made: Mitigation = construct(f"Mitigation {kind.name!r}", kind, options)
    return made
