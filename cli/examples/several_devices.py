"""A model trained and then debiased on several devices, one process each; one device gives equal results.

torchrun --nproc-per-node 2 -m examples.several_devices TABLE OUT [EPOCHS]

or, on GPUs, ``accelerate launch --multi-gpu --num-processes 2 -m`` in the place of ``torchrun``, which on CPUs starts
one process only.

TABLE: loan applications with the label ``deny`` and the column ``afam``, such as ``demo/hmda.py`` writes.
"""

from __future__ import annotations

import sys

import numpy as np

from auditor import MITIGATIONS, AuditData, save
from auditor.loading.job_specs import TrainSpec
from auditor.run.mitigation import Training
from auditor.training.multi_device import devices_of_job
from auditor.training.train_table import train_table


def main(table: str, out: str, epochs: int = 50) -> None:
    """Train on every process; the first one writes the debiased model to ``out``."""
    devices = devices_of_job()
    trained = train_table(TrainSpec(data=table, target="deny", positive="no", epochs=epochs), print, devices=devices)
    features = list(trained.model.preprocessing.features)
    rows = AuditData.from_arrays(
        trained.train[features],
        trained.train["deny"],
        classes=trained.model.classes,
        positive="no",
        sensitive_features=trained.train[["afam"]],
    )
    found = MITIGATIONS["adversarial_debiasing"](epochs=epochs).mitigate(
        trained.model,
        rows,
        np.random.default_rng(0),
        Training(device=str(devices.device), devices=devices, progress=print),
    )
    if devices.is_main:
        save(found.model, out)
    devices.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
