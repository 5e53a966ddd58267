"""captum without its drawings: nothing that is measured needs matplotlib, and what draws does when it is called."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from auditor.loading.import_finders import without_drawing
without_drawing()
import captum.attr, captum.metrics
print("matplotlib" in sys.modules, captum.attr.IntegratedGradients.__name__)
from captum.attr import visualization
import numpy as np
drawing, _ = visualization.visualize_image_attr(np.ones((2, 2, 3)), np.ones((2, 2, 3)), use_pyplot=False)
print("matplotlib" in sys.modules, type(drawing).__name__)
from captum.attr._utils.visualization import ImageVisualizationMethod
print(ImageVisualizationMethod.heat_map.name)
"""


@pytest.mark.slow
def test_captum_is_imported_without_matplotlib_and_draws_when_it_is_asked_to() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["False IntegratedGradients", "True Figure", "heat_map"]
