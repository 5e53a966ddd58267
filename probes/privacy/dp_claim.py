"""The privacy claim of a model: whether the recorded training satisfies it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from auditor.core.errors import OtherKindError
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe
from auditor.statistics.estimate import Exact, Undefined, UpperBound

if TYPE_CHECKING:
    import numpy as np

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.privacy.accounting import Spent
    from auditor.privacy.dp_linter import LintResult
    from auditor.privacy.run_record import RunRecord

# Faults of what is said of a training, which leave what its noise, rate and steps spend as it is.
ABOUT_THE_CLAIM = ("claim_below_accounting", "claim_by_approximation")


class DPClaim(BaseProbe):
    """The recorded training of a model that claims (epsilon, delta)-differential privacy, linted and recomputed.

    Read from the recipe in the model bundle, as ``auditor train --dp-epsilon`` writes it; nothing is trained, and
    neither the model's answers nor data are needed.

    - ``dp_problems``: Known without sampling error. It passes where the record answers every check, and finds no fault;
      where it leaves one open, it can only FAIL. It is about the training as recorded: who writes a false record is not
      seen.
    - ``dp_epsilon``: With what was spent beside them. It can PASS, never FAIL: the true epsilon may be smaller. It is
      no bound, and not judged, where a fault named by ``dp_problems`` makes the training another than is accounted.
    - ``dp_epsilon_by_accountant``: Shown and never judged; GDP is an approximation that can be below the truth.

    Raises NotApplicableError for a model without such a claim. ``auditor dp audit`` asks the training itself.
    Source: Abadi et al., CCS 2016; Mironov et al., arXiv:1908.10530; Gopi et al., NeurIPS 2021; Bu et al., HDSR 2020.
    """

    name = "dp_claim"
    pillar = "privacy"
    goal = "Does the recorded training keep the differential privacy that is claimed for it?"
    citation = "Abadi et al., CCS 2016; Gopi, Lee and Wutschitz, NeurIPS 2021"
    methods = ("lint", "smallest_bound", "rdp", "prv", "pld", "gdp")
    needs = ()
    questions = (AuditQuestion("private", form="count"),)
    reads_rows = False
    metrics = define_metrics(
        """
        dp_problems: number of faults of the recorded training that break the guarantee, each named in the detail; [0,
          inf), ideal 0; at 1 or more the claimed epsilon is not what the training kept to; Abadi et al., CCS 2016
        dp_epsilon: the smallest of PLD's, PRV's and RDP's upper bounds of epsilon at the claimed delta, of the recorded
          noise, sample rate and steps; [0, inf), ideal 0; the odds that anybody took part change by a factor of at most
          exp(epsilon), but for a probability delta; Mironov et al., arXiv:1908.10530, and Gopi et al., NeurIPS 2021
        dp_epsilon_by_accountant: epsilon by rdp, prv, pld and gdp side by side; [0, inf), ideal 0; what each way of
          accounting makes of the same training; Bu et al., Harv. Data Sci. Rev. 2 (2020), for gdp
        """
    )

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """Lint and account for the recorded run.

        Raises NotApplicableError where the model claims no epsilon.
        """
        from auditor.core.errors import ModelError
        from auditor.privacy.accounting import ACCOUNTANTS
        from auditor.privacy.dp_linter import lint
        from auditor.privacy.run_record import run_of_model

        try:
            run = run_of_model(model, "the model")
        except ModelError:
            raise OtherKindError(
                "The model claims no differential privacy: nothing in its file records a private training, as that of "
                "auditor train --dp-epsilon does."
            ) from None
        result = lint(run)
        spent = tuple(one for name in ACCOUNTANTS if run.delta and (one := run.privacy_spent(name)) is not None)
        return [
            _problems(run, result),
            _smallest(run, result, spent),
            *(_epsilon_measurement(run, one) for one in spent),
        ]


def _problems(run: RunRecord, result: LintResult) -> Measurement:
    breaking = [p for p in result.problems if p.severity == "breaks"]
    harming = [p for p in result.problems if p.severity == "harms"]
    missing = ", ".join(name for name, _ in result.not_recorded)
    parts = [_claim_text(run), *(f"{p.code}: {p.what} {p.mend}" for p in breaking)]
    parts += [f"not breaking it, {p.code}: {p.what}" for p in harming]
    parts += [f"{len(result.clean)} checks found nothing"]
    parts += [f"not recorded and so not checked: {missing}"] if missing else []
    parts += [f"left open, {name}: {why}" for name, why in result.cannot_tell]
    return Measurement(
        metric="dp_problems",
        method="lint",
        estimate=Exact(known=float(len(breaking))),
        n_samples=run.n_rows or 0,
        ideal=0.0,
        detail="; ".join(part.rstrip(".") for part in parts),
        too_few=""
        if breaking or not result.open
        else "A record without fault proves no guarantee, and it leaves open what "
        f"{len(result.not_recorded) + len(result.cannot_tell)} checks ask: audit the training with auditor dp audit.",
    )


def _smallest(run: RunRecord, result: LintResult, accounts: Sequence[Spent]) -> Measurement:
    bounds = [one.epsilon for one in accounts if one.is_bound and one.epsilon is not None]
    least = min(bounds, default=math.nan)
    if math.isfinite(least):
        estimate: UpperBound | Undefined = UpperBound(most=least)
    elif bounds:
        estimate = Undefined(reason="Epsilon is infinite: without noise there is no guarantee.")
    elif accounts:
        estimate = Undefined(reason="No accountant can say: " + "; ".join(f"{s.accountant} {s.note}" for s in accounts))
    elif run.delta == 0.0:
        estimate = Undefined(reason="At delta 0 the noise of DP-SGD keeps no finite epsilon: state a delta above 0.")
    else:
        estimate = Undefined(
            reason="The noise, the sample rate and the steps of the training, or delta, are not recorded."
        )
    faults = [p.code for p in result.problems if p.severity == "breaks" and p.code not in ABOUT_THE_CLAIM]
    said = "".join(f"{s.accountant} {_number(s.epsilon)}, " for s in accounts)
    return Measurement(
        metric="dp_epsilon",
        method="smallest_bound",
        estimate=estimate,
        n_samples=run.n_rows or 0,
        ideal=0.0,
        detail=f"{said}an upper bound if the training was as recorded; {_claim_text(run)}",
        too_few=""
        if not faults
        else f"What is accounted is not what was done ({', '.join(faults)}), so it bounds nothing: mend that first, as "
        "dp_problems says.",
    )


def _epsilon_measurement(run: RunRecord, account: Spent) -> Measurement:
    known = account.epsilon is not None and math.isfinite(account.epsilon)
    return Measurement(
        metric="dp_epsilon_by_accountant",
        method=account.accountant,
        estimate=UpperBound(most=float(account.epsilon or 0.0))
        if known and account.is_bound
        else Exact(known=float(account.epsilon or 0.0))
        if known
        else Undefined(reason="epsilon is infinite" if account.epsilon is not None else account.note),
        n_samples=run.n_rows or 0,
        ideal=0.0,
        detail=f"{'an upper bound' if account.is_bound else 'no bound'}: {account.note}; {_claim_text(run)}",
        too_few="Display only: set a bound on dp_epsilon, the smallest of the upper bounds."
        if account.is_bound
        else "GDP is an approximation that can be below the truth: for display only.",
    )


def _claim_text(run: RunRecord) -> str:
    return f"claimed: epsilon {run.claimed_epsilon:.4g}" + ("" if run.delta is None else f" at delta {run.delta:.3g}")


def _number(epsilon: float | None) -> str:
    return "not known" if epsilon is None else f"{epsilon:.4g}"
