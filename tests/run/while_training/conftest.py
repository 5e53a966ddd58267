"""What tests of looks share that look at no picture."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from auditor.report import html


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their figures, which are drawn anew after every look and take longer than it.

    Pages of a training are whole in ``test_training_audit``, ``test_ranks`` and ``test_examples``.
    """
    monkeypatch.setattr(html, "figure_svg", lambda drawn, say: Markup(f'<svg id="{drawn.dom_id}"></svg>'))
