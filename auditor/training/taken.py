"""What the training of a model took, in a file beside it: the same seed gives the same model, and another such file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import DataError
from auditor.files import read_regular, sha256_of, write_beside
from auditor.record.energy import EnergyRecord, TrainingEnergy

if TYPE_CHECKING:
    from auditor.training.meter import Meter

_MOST_BYTES = 1 << 20


def energy_place(model: Path) -> Path:
    """Where it lies beside a model file, or a model's folder."""
    # The name of any other keeps what stands behind its last dot, which may be a version.
    stem = model.stem if model.suffix == ".pt" else model.name
    return model.with_name(f"{stem}.energy.json")


def of_training(meter: Meter, flops: float | None = None) -> EnergyRecord:
    """What a meter read. ``flops``: of the forward passes, None where nobody counted."""
    energy = meter.record(of="training")
    return energy if not flops else energy.model_copy(update={"flops": flops, "flops_by": "counted"})


def write_energy(model: Path, energy: EnergyRecord) -> Path:
    """Writes the file beside a model that is there; returns its path."""
    place = energy_place(model)
    content = TrainingEnergy(model_sha256=_digest(model), energy=energy)
    write_beside(place, (content.model_dump_json(indent=2) + "\n").encode())
    return place


def read_energy(model: Path) -> EnergyRecord | None:
    """What lies beside a model; None where nothing does, or what is of other bytes than the model's."""
    try:
        content = TrainingEnergy.model_validate_json(
            read_regular(energy_place(model), "What the training took", _MOST_BYTES)
        )
    except (DataError, ValueError):
        return None
    return content.energy if content.model_sha256 == _digest(model) else None


def _digest(model: Path) -> str:
    if model.is_dir():
        from auditor.reading.folders import sha256_of_folder

        return sha256_of_folder(model)
    return sha256_of(model)
