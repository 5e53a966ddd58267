"""Linter of DP-SGD runs for errors that break the guarantee: one small check each, on the run's record.

:func:`lint` serves a saved record and a live set-up alike: :mod:`auditor.privacy.observe_opacus` observes a live one as
a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditor.privacy import dp_claim_checks as claim
from auditor.privacy import dp_step_checks as steps
from auditor.privacy.dp_problem import CannotTell, Check, Problem, R
from auditor.privacy.run_record import RunRecord


@dataclass(frozen=True, kw_only=True)
class LintResult:
    """Problems, checks without problems, checks that could not run (with their missing fields), and checks that the
    record leaves open (with the reason)."""

    problems: tuple[Problem, ...]
    clean: tuple[str, ...]
    not_recorded: tuple[tuple[str, tuple[str, ...]], ...]
    cannot_tell: tuple[tuple[str, str], ...]

    @property
    def breaks(self) -> bool:
        """Whether any problem breaks the guarantee."""
        return any(problem.severity == "breaks" for problem in self.problems)

    @property
    def open(self) -> bool:
        """Whether any check has no result."""
        return bool(self.not_recorded or self.cannot_tell)


def lint(run: RunRecord) -> LintResult:
    """Run every check of ``CHECKS`` that the record supports."""
    return run_checks(run, CHECKS)


def run_checks(run: R, checks: Sequence[Check[R]]) -> LintResult:
    """Run every check that the record supports."""
    problems, clean, missing, untold = [], [], [], []
    for check in checks:
        absent = tuple(field for field in check.needs if getattr(run, field) is None)
        if absent:
            missing.append((check.name, absent))
            continue
        found = check.ask(run)
        if found is None:
            clean.append(check.name)
        elif isinstance(found, CannotTell):
            untold.append((check.name, found.why))
        else:
            problems.append(Problem(code=check.name, **vars(found)))
    return LintResult(
        problems=tuple(problems), clean=tuple(clean), not_recorded=tuple(missing), cannot_tell=tuple(untold)
    )


CHECKS: tuple[Check[RunRecord], ...] = (
    steps.sampler_not_poisson,
    steps.weighted_sampler,
    steps.sample_rate_too_low,
    steps.accounted_rate_too_low,
    steps.batch_not_as_intended,
    steps.empty_batches_dropped,
    steps.no_noise,
    steps.noise_below_accounting,
    steps.gradient_accumulation,
    steps.virtual_steps,
    steps.divided_by_actual_size,
    steps.wrong_expected_size,
    steps.sensitivity_above_norm,
    steps.draws_without_step,
    steps.steps_without_draw,
    steps.steps_not_counted,
    steps.steps_without_noise,
    steps.moved_outside_steps,
    steps.clipping_never_binds,
    steps.clipping_always_binds,
    claim.cross_example_layers,
    claim.parameters_not_moving,
    claim.wrong_gradients,
    claim.wrong_batch_dimension,
    claim.delta_too_large,
    claim.claim_below_accounting,
    claim.claim_by_approximation,
    claim.search_not_accounted,
    claim.data_dependent_preprocessing,
    claim.noise_seed_known,
)
