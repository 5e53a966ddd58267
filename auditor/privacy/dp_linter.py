"""Linter of DP-SGD runs for errors that break the guarantee; ``dp_checks.toml`` has what its checks say.

:func:`lint` serves a saved record and a live set-up alike: :mod:`auditor.privacy.observe_opacus` observes a live one as
a record.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Generic, Literal, TypeVar

import scipy

from auditor.privacy.accounting import BOUNDS
from auditor.privacy.released_noise import SLACK
from auditor.privacy.run_record import RunRecord

R = TypeVar("R")

Severity = Literal["breaks", "harms"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error: ``severity`` is ``breaks`` if the stated epsilon is invalid, ``harms`` if valid at a loss."""

    code: str
    severity: Severity
    what: str
    why: str
    mend: str


# False: no fault. True or values for the sentences: a fault. A sentence: why the record is insufficient.
Found = bool | dict[str, Any] | str


@dataclass(frozen=True, kw_only=True)
class Check(Generic[R]):
    """One check of a run; ``needs``: the fields required for it.

    ``ask`` gives whether there is a fault, or the values that ``what``, ``why`` and ``mend`` name besides the run's
    fields, or the reason why the fields that are there do not tell. A value called ``what``, ``why`` or ``mend`` stands
    for the whole sentence.
    """

    name: str
    needs: Sequence[str]
    ask: Callable[[R], Found]
    what: str = "{what}"
    why: str = "{why}"
    mend: str = "{mend}"
    severity: Severity = "breaks"


def read_checks(package: str, name: str, asks: Mapping[str, Callable[[R], Found]]) -> tuple[Check[R], ...]:
    """The checks of a file of the package, in its order, each with its function."""
    rows = tomllib.loads((files(package) / name).read_text("utf-8"))
    return tuple(Check(name=check, ask=asks[check], **row) for check, row in rows.items())


SAME = 1e-3
# Layers that take their statistics from the batch, by what their classes are called here and there.
_OF_THE_BATCH = re.compile(
    r"batch_?(re)?norm|inplace_?abn|^(sync)?(abn|bn)(\d?d|act.*)?$|evonorm\w*b\d|switch(able)?_?norm|minibatch_?(std|disc)",
    re.IGNORECASE,
)
_FIXED = re.compile("frozen|fixed", re.IGNORECASE)


def _of_which_phase(quantity: str, actual: float, low: float, high: float) -> str:
    return (
        f"The {quantity} of {actual:.4g} lies between those of the accounted phases, {low:.4g} and {high:.4g}, and "
        "nothing says in which of them it was used: lint each phase as a run of its own."
    )


def _rate_counted(run: RunRecord, quantity: str, actual: float, least: float) -> Found:
    rates = [phase.sample_rate for phase in run.phases or ()]
    if min(rates) >= least:
        return False
    if max(rates) >= least:
        return _of_which_phase(quantity, actual, min(rates), max(rates))
    return {"actual": actual, "counted": max(rates)}


def _accounted_rate_too_low(run: RunRecord) -> Found:
    if run.sample_rate is not None:
        return False  # where the loader's own rate is known, it is held against that
    intended = (run.batch_size or 0.0) / (run.n_rows or 1)
    # A last batch that is not full makes Opacus' rate lower by up to one batch in an epoch.
    found = _rate_counted(run, "batch size over rows", intended, intended / (1.0 + intended) * (1.0 - SAME))
    return found | {"rows": found["counted"] * (run.n_rows or 0)} if isinstance(found, dict) else found


def _batch_not_as_intended(run: RunRecord) -> Found:
    intended, rate = (run.batch_size or 0.0) / (run.n_rows or 1), run.sample_rate or 0.0
    if intended / (1.0 + intended) * (1.0 - SAME) <= rate <= intended * (1.0 + SAME):
        return False
    return {"intended": intended, "factor": max(rate / intended, intended / rate)}


def _noise_below_accounting(run: RunRecord) -> Found:
    # Of several phases the last optimizer's noise may be any of them, and is none where it is below the least.
    noises = [phase.noise_multiplier for phase in run.phases or ()]
    counted, actual = min(noises), run.noise_multiplier or 0.0
    if actual >= max(noises) * (1.0 - SAME):
        return False
    if actual >= counted * (1.0 - SAME):
        return _of_which_phase("noise multiplier", actual, counted, max(noises))
    return {"counted": counted}


def _wrong_expected_size(run: RunRecord) -> Found:
    rate, n, divisor = run.sample_rate or 0.0, run.n_rows or 0, run.expected_batch_size or 0.0
    # Opacus rounds down, and takes a rate that can be one step in an epoch off.
    most = n / max(1.0 / rate - 1.0, 1.0)
    right = math.floor(rate * n) <= divisor + 1e-9 and divisor <= most
    return False if right else {"expected": rate * n}


def _steps_without_draw(run: RunRecord) -> Found:
    more, again = (run.steps_taken or 0) - (run.draws or 0), run.repeated_draws or 0
    if more > 0:
        return {"what": f"{more:,} steps were taken on rows that had had theirs."}
    return again > 0 and {"what": f"{again:,} batches came again."}


def _steps_not_counted(run: RunRecord) -> Found:
    counted = sum(phase.steps for phase in run.phases or ())
    return (run.steps_taken or 0) > counted and {"counted": counted}


# How seldom honest draws may hold as many rows as are called too many.
_CHANCE = 1e-6


def _more_rows_than_accounted(run: RunRecord) -> Found:
    rate, steps, rows = max(phase.sample_rate for phase in run.phases or ()), run.steps_seen or 1, run.rows_seen or 0
    if run.n_rows is not None:
        n = run.n_rows
    elif run.expected_batch_size is not None:
        # Opacus rounds it down, and takes a rate that can be one step in an epoch off.
        n = math.ceil((run.expected_batch_size + 1.0) * (1.0 + rate) / rate)
    else:
        return "Neither the rows nor the expected batch size is recorded, so nobody knows how many rows are too many."
    chance = float(scipy.special.bdtrc(rows - 1, n * steps, rate)) if rows else 1.0
    return chance < _CHANCE and {"batch": rows / steps, "expected": n * rate, "rate": rate}


def _positive(number: float) -> Found:
    return number > 0 and {"number": number}


def _cross_example_layers(run: RunRecord) -> Found:
    suspect = {layer for layer in run.layers or () if _OF_THE_BATCH.search(layer)} | set(run.running_statistics or ())
    found = sorted(layer for layer in suspect if not _FIXED.search(layer))
    if suspect and not found:
        return (
            f"{', '.join(sorted(suspect))} takes its statistics from batches unless they were fixed before this "
            "training, on other rows, which nothing here says: replace it by GroupNorm, or make sure that they were."
        )
    return bool(found) and {"found": ", ".join(found)}


def _named(names: tuple[str, ...] | None) -> Found:
    names = names or ()
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return bool(names) and {"names": ", ".join(names[:4]) + more}


def _claim_below_accounting(run: RunRecord) -> Found:
    delta, claimed = run.delta or 0.0, run.claimed_epsilon or 0.0
    if run.accounted() is None:
        return "No phase is recorded, so there is nothing to account."
    if delta == 0.0:
        return {
            "what": f"Epsilon {claimed:.4g} is claimed at delta 0.",
            "why": "The Gaussian noise of DP-SGD keeps no finite epsilon at delta 0, however much of it there is.",
            "mend": "State a delta above 0 and well below one over the rows, with the epsilon that `auditor dp budget` "
            "gives for it.",
        }
    bounds = [run.privacy_spent(name) for name in BOUNDS]
    if None in bounds:
        return {
            "what": f"The preprocessing alone took more than delta {delta:g}.",
            "why": "Nothing of delta is left for the steps.",
            "mend": "State a delta above the preprocessing's, with the epsilon that the whole run spends at it.",
        }
    known = [bound.epsilon for bound in bounds if bound is not None and bound.epsilon is not None]
    if not known:
        return "No accountant can say what the recorded steps spend: the noise is too small for them."
    return min(known) > claimed + max(0.02, SAME * claimed) and {"spent": min(known)}


def _data_dependent_preprocessing(run: RunRecord) -> Found:
    if run.preprocessing == "private_mechanism" and run.encoding is None:
        return {
            "what": "The preprocessing came from the training rows by a private mechanism, and the record counts "
            "nothing for it.",
            "why": "It is released with the model, so what it spent is part of what the model spends.",
            "mend": "Record what it spent as encoding: noise_multiplier and looks of Gaussian mechanisms, or epsilon.",
        }
    return run.preprocessing == "training_rows"


_FAULTS: dict[str, Callable[[RunRecord], Found]] = {
    "sampler_not_poisson": lambda run: (
        run.sampler not in ("poisson", "weighted")
        and {
            "how": {
                "shuffled": "goes through shuffled rows in batches of one size",
                "in_order": "goes through the rows in their order",
                "with_replacement": "draws rows with replacement",
            }.get(str(run.sampler), "draws in a way of its own")
        }
    ),
    "weighted_sampler": lambda run: run.sampler == "weighted",
    "sample_rate_too_low": lambda run: _rate_counted(
        run, "sample rate", rate := run.sample_rate or 0.0, rate * (1.0 - SAME)
    ),
    "accounted_rate_too_low": _accounted_rate_too_low,
    "more_rows_than_accounted": _more_rows_than_accounted,
    "unclipped_sums": lambda run: _positive(run.unclipped_steps or 0),
    "batch_not_as_intended": _batch_not_as_intended,
    "empty_batches_dropped": lambda run: run.empty_batches != "kept",
    "no_noise": lambda run: run.noise_multiplier == 0.0,
    "noise_below_accounting": _noise_below_accounting,
    "gradient_accumulation": lambda run: run.accumulated_batches != 1,
    "virtual_steps": lambda run: run.virtual_steps not in ("none", "batch_memory_manager"),
    "divided_by_actual_size": lambda run: (
        "divided_by is other: what the noisy sum is divided by decides, and must not depend on who was drawn."
        if run.divided_by == "other"
        else run.divided_by == "actual_batch_size"
    ),
    "wrong_expected_size": _wrong_expected_size,
    "sensitivity_above_norm": lambda run: (run.step_sensitivity or 0.0) > 1.0 + SLACK,
    "draws_without_step": lambda run: _positive((run.draws or 0) - (run.steps_taken or 0)),
    "steps_without_draw": _steps_without_draw,
    "steps_not_counted": _steps_not_counted,
    "steps_without_noise": lambda run: _positive((run.steps_taken or 0) - (run.noise_draws or 0)),
    "moved_outside_steps": lambda run: (
        bool(times := run.moved_outside_steps) and {"times": "once" if times == 1 else f"{times:,} times"}
    ),
    "clipping_never_binds": lambda run: (run.clipped_share or 0.0) <= 0.0,
    "clipping_always_binds": lambda run: (run.clipped_share or 0.0) >= 1.0,
    "cross_example_layers": _cross_example_layers,
    "parameters_not_moving": lambda run: _named(run.not_moving),
    "wrong_gradients": lambda run: _named(run.wrong_gradient),
    "wrong_batch_dimension": lambda run: _named(run.wrong_batch),
    "delta_too_large": lambda run: (
        (run.delta or 0.0) >= 1.0 / (n := run.n_rows or 1) and {"share": 1.0 / n, "better": n**-1.1}
    ),
    "claim_below_accounting": _claim_below_accounting,
    "claim_by_approximation": lambda run: run.accountant == "gdp",
    "search_not_accounted": lambda run: run.n_trials != 1 and not run.trials_accounted,
    "data_dependent_preprocessing": _data_dependent_preprocessing,
    "noise_seed_known": lambda run: bool(run.noise_seed_known),
}

CHECKS = read_checks("auditor.privacy", "dp_checks.toml", _FAULTS)
# Asked of an audit, a live set-up or a watched loop alone: no bundle and no earlier record holds their fields.
IF_SEEN = {"more_rows_than_accounted": "rows_seen", "unclipped_sums": "unclipped_steps"}


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
    """Run every check of ``CHECKS`` that the record supports, and those of ``IF_SEEN`` where their field is there."""
    return run_checks(run, [c for c in CHECKS if getattr(run, IF_SEEN.get(c.name, "format")) is not None])


def run_checks(run: R, checks: Sequence[Check[R]]) -> LintResult:
    """Run every check that the record supports."""
    problems, clean, missing, untold = [], [], [], []
    for check in checks:
        absent = tuple(field for field in check.needs if getattr(run, field) is None)
        found = None if absent else check.ask(run)
        if found is None:
            missing.append((check.name, absent))
        elif isinstance(found, str):
            untold.append((check.name, found))
        elif found is False:
            clean.append(check.name)
        else:
            values = vars(run) | (found if isinstance(found, dict) else {})
            what, why, mend = (
                values.get(part, getattr(check, part)).format_map(values) for part in ("what", "why", "mend")
            )
            problems.append(Problem(code=check.name, severity=check.severity, what=what, why=why, mend=mend))
    return LintResult(
        problems=tuple(problems), clean=tuple(clean), not_recorded=tuple(missing), cannot_tell=tuple(untold)
    )
