"""The area under the curve of attribute inference: high where the attribute leaks, one half where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from probes.privacy.attribute_inference import AttributeInference
from tests.toys.models import TOYS


@pytest.mark.parametrize(("leaks", "low", "high"), [(True, 0.9, 1.0), (False, 0.4, 0.6)])
def test_the_area_tells_a_leak_from_none(leaks: bool, low: float, high: float) -> None:
    toys = TOYS["attribute_inference"]
    model, data = (toys.violating if leaks else toys.ideal)(), toys.data().take(slice(0, 600))
    found = AttributeInference(**toys.options).measure(model, data, np.random.default_rng(0))
    areas = {m.method: m.estimate.value for m in found if m.metric == "attribute_inference_auc"}
    assert low <= areas["with_answer"] <= high and 0.4 <= areas["without_model"] <= 0.6
