"""Resources used by an audit or a training: joules of the readable counters, CPU time, operations."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from auditor.core.files import LEFT_OUT, UNSAID, Closed
from auditor.core.number_types import NonNegative, Positive
from auditor.report.record.translations import Catalogue

Name = Annotated[str, Field(max_length=120)]
# What a counter counts, whoever of the machine used it.
Counts = Literal["package", "memory", "card"]
# Why there are no joules of a counter.
Why = Literal["absent", "root_only", "unreadable", "vanished", "backwards", "still", "seldom", "not_installed"]


class EnergyCounter(Closed):
    """Joules counted by a hardware counter, in steps of ``resolution_j`` as recorded.

    It counts all of what it is on, other programs included: an upper bound where the machine is shared.
    """

    name: Name
    counts: Counts
    resolution_j: Positive
    joules: NonNegative


class NotMeasured(Closed):
    """A counter, or a kind of counter, without a reading, and the reason."""

    counter: Name
    why: Why


class ProbeEnergy(Closed):
    """The resources used by one probe.

    ``joules``: by counter, of those that made a step meanwhile; ``flops``: as in the whole.
    """

    probe: str
    cpu_s: NonNegative
    flops: Annotated[NonNegative | None, UNSAID] = None
    joules: Annotated[dict[str, NonNegative], LEFT_OUT] = Field(default_factory=dict)


class EnergyRecord(Closed):
    """The resources of an audit, or of a training with its audits; no wattage is assumed anywhere.

    ``cpu_s``: seconds of processor time of all threads. ``gpu_s``: seconds for which a GPU was held, however busy it
    was. ``flops``: of the audited network's forward passes, 2 for a multiplication with its addition: rows times what
    the linear, convolutional and recurrent layers do for one of their shape (``counted``), or 2 x parameters x tokens
    (``estimated``: Kaplan et al., arXiv 2001.08361, 2020); None where nobody could count. Backward passes, models
    trained for comparison and arithmetic outside those layers are not in it. ``not_measured``: why counters tell
    nothing; no joules are known where ``counters`` is empty.
    """

    of: Literal["audit", "training"]
    cpu_s: NonNegative
    gpu_s: NonNegative
    flops: Annotated[NonNegative | None, UNSAID] = None
    flops_by: Annotated[Literal["", "counted", "estimated"], LEFT_OUT] = ""
    counters: Annotated[tuple[EnergyCounter, ...], LEFT_OUT] = ()
    not_measured: Annotated[tuple[NotMeasured, ...], LEFT_OUT] = ()
    probes: Annotated[tuple[ProbeEnergy, ...], LEFT_OUT] = ()

    @property
    def joules(self) -> float | None:
        """The sum over all counters, which do not overlap; None if none could be read."""
        return math.fsum(counter.joules for counter in self.counters) if self.counters else None

    def describe(self, say: Catalogue) -> str:
        """All resources in one line."""
        parts = [
            say.say(
                f"energy.{counter.counts}",
                joules=say.number(counter.joules, 3),
                name=counter.name,
                step=f"{counter.resolution_j:g}",
            )
            for counter in self.counters
        ]
        why = "; ".join(f"{each.counter}: {say.say(f'energy.{each.why}')}" for each in self.not_measured)
        if why or not parts:
            parts.append(say.say("energy.not_measured", why=why or say.say("energy.absent")))
        return ". ".join([*parts, self.computed(say)])

    def computed(self, say: Catalogue) -> str:
        """Processor and GPU time, and operations."""
        flops = say.say("energy.flops_unknown")
        if self.flops is not None and self.flops_by:
            flops = say.say(f"energy.flops_{self.flops_by}", flops=say.spelled(f"{self.flops:.3g}"))
        times = (say.spelled(f"{seconds:.1f}") for seconds in (self.cpu_s, self.gpu_s))
        return say.say(f"energy.{self.of}", cpu=next(times), gpu=next(times), flops=flops)


class TrainingEnergy(Closed):
    """The resources used by one model's training.

    ``model_sha256``: of the file that came of it, by which it is known.
    """

    format: Literal["auditor-training-energy/1"] = "auditor-training-energy/1"
    model_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    energy: EnergyRecord
