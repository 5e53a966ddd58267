"""How each mitigation of tables did on five real data sets, beside doing nothing and beside fairlearn and AIF360."""

from __future__ import annotations

from auditor.run.mitigation import Experience

EXPERIENCE: dict[str, Experience] = {}
