"""What shap compiles at its first use is compiled before any test, so that none is charged with it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from probes.attribution.shapley import _shap


@pytest.fixture(autouse=True, scope="session")
def compiled_shap() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shap = _shap()
        masker = shap.maskers.Independent(np.zeros((2, 2)))
        shap.PermutationExplainer(lambda x: x.sum(axis=1), masker, seed=0)(np.ones((1, 2)), max_evals=10, silent=True)
