"""A loader without any care in the place of the real one, in the process that measuring processes are forked from."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import joblib
import numpy as np
import torch

from auditor.core.errors import ModelError
from auditor.loading.formats import Opened, load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.run import child_jobs, child_start


def careless(spec: ModelSpec, *, model_file: Opened | None = None) -> AuditedModel:
    """Does with a file whatever it says; a function of the user's goes the real way."""
    if spec.path is None:
        return load_model(spec)
    path = Path(spec.path)
    if path.is_dir():
        eval(json.loads((path / "config.json").read_text())["activation"])
    elif path.suffix == ".pt":
        torch.load(path, weights_only=False)
    elif path.suffix == ".joblib":
        joblib.load(path)
    elif path.suffix == ".npy":
        np.load(path, allow_pickle=True)
    else:
        pickle.loads(path.read_bytes())
    raise ModelError("It was loaded.")


child_start.refuse_early = lambda spec: None
child_jobs.load_model = careless
