"""A cost file beside a trained model: equal seeds give equal models, but different cost files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.core.errors import DataError
from auditor.core.files import read_regular, sha256_of, write_beside
from auditor.report.record.energy import EnergyRecord, TrainingEnergy

if TYPE_CHECKING:
    from auditor.training.meter import Meter

_MOST_BYTES = 1 << 20


def energy_place(model: Path) -> Path:
    """The path of the cost file beside a model file, or beside a model's folder."""
    # The name of any other keeps what stands behind its last dot, which may be a version.
    stem = model.stem if model.suffix == ".pt" else model.name
    return model.with_name(f"{stem}.energy.json")


def of_training(meter: Meter, flops: float | None = None) -> EnergyRecord:
    """The readings of a meter.

    ``flops``: of the forward passes, None where nobody counted.
    """
    energy = meter.record(activity="training")
    return energy if not flops else energy.model_copy(update={"flops": flops, "flops_by": "counted"})


def write_energy(model: Path, energy: EnergyRecord) -> Path:
    """Write the cost file beside an existing model; return its path."""
    place = energy_place(model)
    content = TrainingEnergy(model_sha256=_digest(model), energy=energy)
    write_beside(place, (content.model_dump_json(indent=2) + "\n").encode())
    return place


def read_energy(model: Path) -> EnergyRecord | None:
    """The costs stored beside a model; None if missing, or if the digest is not the model's."""
    try:
        content = TrainingEnergy.model_validate_json(
            read_regular(energy_place(model), "What the training took", _MOST_BYTES)
        )
    except (DataError, ValueError):
        return None
    return content.energy if content.model_sha256 == _digest(model) else None


def _digest(model: Path) -> str:
    if model.is_dir():
        from auditor.loading.rows.folders import sha256_of_folder

        return sha256_of_folder(model)
    return sha256_of(model)
