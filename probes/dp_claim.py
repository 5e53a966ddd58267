"""The privacy claim that a model brings along: does the recorded training keep it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from auditor.errors import NotApplicableError
from auditor.finding import Measurement, Pillar
from auditor.probe import Need
from auditor.statistics.estimate import Exact, Undefined

if TYPE_CHECKING:
    import numpy as np

    from auditor.data import AuditData
    from auditor.model import AuditedModel
    from auditor.privacy.accounting import Spent
    from auditor.privacy.dp_linter import LintResult
    from auditor.privacy.run_record import RunRecord


class DPClaim:
    """The recorded training of a model that claims (epsilon, delta)-differential privacy, linted and accounted anew.

    Read from the recipe in the model bundle, as ``auditor train --dp-epsilon`` writes it; nothing is trained, and
    neither the model's answers nor data are needed.

    - ``dp_problems``: faults of the recorded training that break the guarantee, each named in the detail; [0, inf),
      ideal 0. Known without sampling error. It can FAIL, never PASS: a record that shows no fault proves no guarantee,
      and some checks need what no recipe holds.
    - ``dp_epsilon``: epsilon at the claimed delta of the recorded noise, sample rate and steps, by ``rdp``, ``prv`` and
      ``gdp``; [0, inf), ideal 0. RDP and PRV are upper bounds; GDP is an approximation, shown and never judged.

    Raises NotApplicableError for a model without such a claim. ``auditor dp-audit`` asks the training itself.
    Source: Abadi et al., CCS 2016; Mironov et al., arXiv:1908.10530; Gopi et al., NeurIPS 2021; Bu et al., HDSR 2020.
    """

    name: ClassVar[str] = "dp_claim"
    pillar: ClassVar[Pillar] = "privacy"
    goal: ClassVar[str] = "Does the recorded training keep the differential privacy that is claimed for it?"
    citation: ClassVar[str] = "Abadi et al., CCS 2016; Gopi, Lee and Wutschitz, NeurIPS 2021"
    methods: ClassVar[tuple[str, ...]] = ("lint", "rdp", "prv", "gdp")
    needs: ClassVar[tuple[Need, ...]] = ()

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """Lints and accounts the recorded run. Raises NotApplicableError where the model claims no epsilon."""
        from auditor.errors import ModelError
        from auditor.privacy.accounting import side_by_side
        from auditor.privacy.bundle_record import run_of_model
        from auditor.privacy.dp_linter import lint

        try:
            run = run_of_model(model, "the model")
        except ModelError:
            raise NotApplicableError(
                "The model claims no differential privacy: nothing in its file records a private training, as that of "
                "auditor train --dp-epsilon does."
            ) from None
        found = [_problems(run, lint(run))]
        phases = run.accounted()
        if phases is not None and run.delta:
            found += [_spent(run, spent) for spent in side_by_side(phases, run.delta)]
        return found


def _problems(run: RunRecord, result: LintResult) -> Measurement:
    breaking = [p for p in result.problems if p.severity == "breaks"]
    harming = [p for p in result.problems if p.severity == "harms"]
    missing = ", ".join(name for name, _ in result.not_recorded)
    claim = f"claimed: epsilon {run.claimed_epsilon:.4g}" + ("" if run.delta is None else f" at delta {run.delta:.3g}")
    parts = [claim, *(f"{p.code}: {p.what} {p.mend}" for p in breaking)]
    parts += [f"not breaking it, {p.code}: {p.what}" for p in harming]
    parts += [f"{len(result.clean)} checks found nothing"]
    parts += [f"not recorded and so not checked: {missing}"] if missing else []
    return Measurement(
        metric="dp_problems",
        method="lint",
        estimate=Exact(known=float(len(breaking))),
        n_samples=run.n_rows or 0,
        ideal=0.0,
        detail="; ".join(part.rstrip(".") for part in parts),
        too_few=""
        if breaking
        else "A record without fault proves no guarantee"
        + (f", and it leaves out what {len(result.not_recorded)} checks need: " if missing else ": ")
        + "audit the training with auditor dp-audit.",
    )


def _spent(run: RunRecord, spent: Spent) -> Measurement:
    known = spent.epsilon is not None and math.isfinite(spent.epsilon)
    return Measurement(
        metric="dp_epsilon",
        method=spent.accountant,
        estimate=Exact(known=float(spent.epsilon or 0.0))
        if known
        else Undefined(reason="epsilon is infinite" if spent.epsilon is not None else spent.note),
        n_samples=run.n_rows or 0,
        ideal=0.0,
        detail=f"{'an upper bound' if spent.is_bound else 'no bound'}: {spent.note}; claimed {run.claimed_epsilon:.4g}",
        too_few="" if spent.is_bound else "GDP is an approximation that can be below the truth: for display only.",
    )
