"""Linter of DP-SGD runs for errors that break the guarantee: one small check each, on the run's record.

:func:`lint` serves a saved record and a live set-up alike: :mod:`auditor.privacy.observe_opacus` observes a live one as
a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from auditor.privacy import dp_claim_checks as claim
from auditor.privacy import dp_step_checks as steps
from auditor.privacy.dp_problem import CannotTell, Problem
from auditor.privacy.run_record import RunRecord

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Check(Generic[R]):
    """One check of a run; ``needs``: the fields required for it.

    ``ask`` gives the fault, None where there is none, or why the fields that are there do not tell.
    """

    name: str
    needs: tuple[str, ...]
    ask: Callable[[R], Problem | CannotTell | None]


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
            problems.append(found)
    return LintResult(
        problems=tuple(problems), clean=tuple(clean), not_recorded=tuple(missing), cannot_tell=tuple(untold)
    )


CHECKS: tuple[Check[RunRecord], ...] = (
    Check(name="sampler_not_poisson", needs=("sampler",), ask=steps.sampler_not_poisson),
    Check(name="weighted_sampler", needs=("sampler",), ask=steps.weighted_sampler),
    Check(name="sample_rate_too_low", needs=("phases", "sample_rate"), ask=steps.sample_rate_too_low),
    Check(name="accounted_rate_too_low", needs=("batch_size", "n_rows", "phases"), ask=steps.accounted_rate_too_low),
    Check(name="batch_not_as_intended", needs=("batch_size", "n_rows", "sample_rate"), ask=steps.batch_not_as_intended),
    Check(name="empty_batches_dropped", needs=("empty_batches",), ask=steps.empty_batches_dropped),
    Check(name="no_noise", needs=("noise_multiplier",), ask=steps.no_noise),
    Check(name="noise_below_accounting", needs=("noise_multiplier", "phases"), ask=steps.noise_below_accounting),
    Check(name="gradient_accumulation", needs=("accumulated_batches",), ask=steps.gradient_accumulation),
    Check(name="virtual_steps", needs=("virtual_steps",), ask=steps.virtual_steps),
    Check(name="divided_by_actual_size", needs=("divided_by",), ask=steps.divided_by_actual_size),
    Check(
        name="wrong_expected_size",
        needs=("expected_batch_size", "sample_rate", "n_rows"),
        ask=steps.wrong_expected_size,
    ),
    Check(name="sensitivity_above_norm", needs=("step_sensitivity",), ask=steps.sensitivity_above_norm),
    Check(name="draws_without_step", needs=("draws", "steps_taken"), ask=steps.draws_without_step),
    Check(name="steps_without_draw", needs=("draws", "steps_taken", "repeated_draws"), ask=steps.steps_without_draw),
    Check(name="steps_not_counted", needs=("steps_taken", "phases"), ask=steps.steps_not_counted),
    Check(name="steps_without_noise", needs=("noise_draws", "steps_taken"), ask=steps.steps_without_noise),
    Check(name="moved_outside_steps", needs=("moved_outside_steps",), ask=steps.moved_outside_steps),
    Check(name="clipping_never_binds", needs=("clipped_share",), ask=steps.clipping_never_binds),
    Check(name="clipping_always_binds", needs=("clipped_share",), ask=steps.clipping_always_binds),
    Check(name="cross_example_layers", needs=("layers",), ask=claim.cross_example_layers),
    Check(name="parameters_not_moving", needs=("not_moving",), ask=claim.parameters_not_moving),
    Check(name="wrong_gradients", needs=("wrong_gradient",), ask=claim.wrong_gradients),
    Check(name="wrong_batch_dimension", needs=("wrong_batch",), ask=claim.wrong_batch_dimension),
    Check(name="delta_too_large", needs=("delta", "n_rows"), ask=claim.delta_too_large),
    Check(
        name="claim_below_accounting", needs=("claimed_epsilon", "delta", "phases"), ask=claim.claim_below_accounting
    ),
    Check(name="claim_by_approximation", needs=("accountant",), ask=claim.claim_by_approximation),
    Check(name="search_not_accounted", needs=("n_trials",), ask=claim.search_not_accounted),
    Check(name="data_dependent_preprocessing", needs=("preprocessing",), ask=claim.data_dependent_preprocessing),
    Check(name="noise_seed_known", needs=("noise_seed_known",), ask=claim.noise_seed_known),
)
