"""Scores of pairs beside those of an earlier model: both are asked alone again, and the shift is between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.run.run_audit import no_data
from probes import PROBES
from tests.contract.option_worlds import toys_of


@pytest.mark.grid(by=lambda name, swapped: name)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["stereoset", "crows_pairs"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_shift_lies_between_the_two_scores(name: str, swapped: bool, tmp_path: Path) -> None:
    toys = toys_of(name, tmp_path)
    now, before = (toys.ideal(), toys.violating()) if swapped else (toys.violating(), toys.ideal())

    def scores(model: Any, **options: Any) -> dict[tuple[str, str], float]:
        found = PROBES[name](**toys.options, **options).measure(model, no_data(), np.random.default_rng(0))
        return {(m.method, m.metric): m.estimate.value for m in found if not m.group}

    after, earlier, both = scores(now), scores(before), scores(now, reference=before)
    assert {key: both[key] for key in after} == after
    shifted = [key for key in after if (key[0], f"{key[1]}_shift") in both]
    assert len(shifted) > 0 and any(after[key] != earlier[key] for key in shifted)
    for method, metric in shifted:
        a, b = after[method, metric], earlier[method, metric]
        assert both[method, f"{metric}_shift"] == pytest.approx((1.0 + a - b) / 2.0), metric
        assert both[method, f"{metric}_midpoint"] == pytest.approx((a + b) / 2.0), metric
