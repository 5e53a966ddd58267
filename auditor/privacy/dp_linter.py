"""Linter of DP-SGD runs for errors that break the guarantee, and the checks of the model and the claim.

:func:`lint` serves a saved record and a live set-up alike: :mod:`auditor.privacy.observe_opacus` observes a live one as
a record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.privacy import dp_checks as steps
from auditor.privacy.accounting import Accountant
from auditor.privacy.dp_checks import CannotTell, Check, Fault, Found, Problem, R, check
from auditor.privacy.run_record import RunRecord

SAME = 1e-3
# Layers that take their statistics from the batch, by what their classes are called here and there.
_OF_THE_BATCH = re.compile(
    r"batch_?(re)?norm|inplace_?abn|^(sync)?(abn|bn)(\d?d|act.*)?$|evonorm\w*b\d|switch(able)?_?norm|minibatch_?(std|disc)",
    re.IGNORECASE,
)
_FIXED = re.compile("frozen|fixed", re.IGNORECASE)


# ---- the model -------------------------------------------------------------------------------------------------------


@check("layers")
def cross_example_layers(run: RunRecord) -> Found:
    """Layers that mix the rows of a batch, or keep statistics of the rows."""
    suspect = {layer for layer in run.layers or () if _OF_THE_BATCH.search(layer)} | set(run.running_statistics or ())
    found = sorted(layer for layer in suspect if not _FIXED.search(layer))
    if found:
        return Fault(
            what=f"The model has {', '.join(found)}, whose output for a row depends on the other rows of its batch, or "
            "which keeps their means and variances.",
            why="One row then moves the gradients of all others, so clipping each of them does not bound what it "
            "can do; and running statistics are released without noise.",
            mend="Replace it by GroupNorm or LayerNorm: opacus.validators.ModuleValidator.fix(model).",
        )
    if suspect:
        return CannotTell(
            why=f"{', '.join(sorted(suspect))} takes its statistics from batches unless they were fixed before this "
            "training, on other rows, which nothing here says: replace it by GroupNorm, or make sure that they were."
        )
    return None


@check("not_moving")
def parameters_not_moving(run: RunRecord) -> Found:
    """Trainable parameters that no step changes (opacus#820)."""
    if not run.not_moving:
        return None
    return Fault(
        what=f"Trainable parameters never move: {_list_names(run.not_moving)}.",
        why="The optimizer does not hold them, or they get no per-row gradient: what is trained, clipped and "
        "accounted is another model than the one that is used, so that neither its accuracy nor its claim "
        "is about it (opacus#820, LoRA). Parameters outside the optimizer are also open to steps without "
        "clipping or noise.",
        mend="Build the optimizer after the last change of the modules (adapters, device, dtype), from the "
        "parameters that require gradients, and check after one step that each of them moved.",
    )


@check("wrong_gradient")
def wrong_gradients(run: RunRecord) -> Found:
    """Per-row gradients that differ from the rows' gradients (opacus#820)."""
    if not run.wrong_gradient:
        return None
    return Fault(
        what=f"Per-row gradients differ from those of the rows taken alone: {_list_names(run.wrong_gradient)}.",
        why="What is clipped is not one row's gradient, so a row's influence is not bounded by the clipping "
        "norm, and the parameters move in a wrong direction (opacus#820). Causes: rows that meet in the "
        "batch, another batch dimension than the first, adapters that bypass the layers Opacus hooks.",
        mend="Keep the batch dimension first, call adapters as layers, or freeze the parameters.",
    )


@check("wrong_batch")
def wrong_batch_dimension(run: RunRecord) -> Found:
    """Parameters whose per-row gradients do not have one entry per row."""
    if not run.wrong_batch:
        return None
    return Fault(
        what=f"Not one gradient a row: {_list_names(run.wrong_batch)}.",
        why="A layer that is called once for the whole batch, as position embeddings of transformers are with "
        "position ids of shape (1, length), has one gradient for all rows: it is clipped as if it were "
        "one row's, so a row's influence is not bounded.",
        mend="Expand its input to the batch (position_ids.expand(batch, -1)), or freeze it with requires_grad=False.",
    )


# ---- the claim -------------------------------------------------------------------------------------------------------


@check("delta", "n_rows")
def delta_too_large(run: RunRecord) -> Found:
    """A delta of at least one over the number of rows."""
    n = run.n_rows or 1
    if (run.delta or 0.0) < 1.0 / n:
        return None
    return Fault(
        what=f"delta is {run.delta:g}, and one over the {n:,} rows is {1.0 / n:.3g}.",
        why="At such a delta a mechanism may publish one row in full and keep the claim, so the claim protects nobody.",
        mend=f"Choose delta well below 1/n, such as n^-1.1 = {n**-1.1:.3g}, and account anew.",
    )


@check("claimed_epsilon", "delta", "phases")
def claim_below_accounting(run: RunRecord) -> Found:
    """A stated epsilon below that of the accountants for the recorded phases."""
    delta, claimed = run.delta or 0.0, run.claimed_epsilon or 0.0
    if run.accounted() is None:
        return CannotTell(why="No phase is recorded, so there is nothing to account.")
    if delta == 0.0:
        return Fault(
            what=f"Epsilon {claimed:.4g} is claimed at delta 0.",
            why="The Gaussian noise of DP-SGD keeps no finite epsilon at delta 0, however much of it there is.",
            mend="State a delta above 0 and well below one over the rows, with the epsilon that `auditor dp budget` "
            "gives for it.",
        )
    accountants: tuple[Accountant, ...] = ("prv", "rdp")
    bounds = [run.privacy_spent(accountant) for accountant in accountants]
    if None in bounds:
        return Fault(
            what=f"The preprocessing alone took more than delta {delta:g}.",
            why="Nothing of delta is left for the steps.",
            mend="State a delta above the preprocessing's, with the epsilon that the whole run spends at it.",
        )
    known = [bound.epsilon for bound in bounds if bound is not None and bound.epsilon is not None]
    if not known:
        return CannotTell(why="No accountant can say what the recorded steps spend: the noise is too small for them.")
    if min(known) <= claimed + max(0.02, SAME * claimed):
        return None
    return Fault(
        what=f"Epsilon {claimed:.4g} is claimed, and what is recorded spends {min(known):.4g} at delta {delta:.3g}.",
        why="The noise, the rate and the number of steps, with what was spent beside them, do not give the guarantee.",
        mend="State what `auditor dp budget` gives for the run, or train with the noise that it asks for.",
    )


@check("accountant")
def claim_by_approximation(run: RunRecord) -> Found:
    """A claim computed by the GDP accountant."""
    if run.accountant != "gdp":
        return None
    return Fault(
        what="Epsilon is taken from the GDP accountant.",
        why="It is a central limit approximation, and can be below the truth (Gopi, Lee and Wutschitz 2021).",
        mend="State the PRV or the RDP accountant's epsilon.",
    )


@check("n_trials")
def search_not_accounted(run: RunRecord) -> Found:
    """Several runs on the same rows, with a claim for one."""
    if run.n_trials == 1 or run.trials_accounted:
        return None
    return Fault(
        what=f"{run.n_trials} runs on these rows led to this model, and the claim counts one.",
        why="The choice between them depends on the rows and is released with the model (Papernot and Steinke 2022).",
        mend="Choose settings on public data; or add the runs up; or account a random number of trials "
        "(Papernot and Steinke 2022).",
    )


@check("preprocessing")
def data_dependent_preprocessing(run: RunRecord) -> Found:
    """Means, vocabularies or selections computed from the training rows in the clear, or at an unsaid price."""
    if run.preprocessing == "private_mechanism" and run.encoding is None:
        return Fault(
            what="The preprocessing came from the training rows by a private mechanism, and the record counts nothing "
            "for it.",
            why="It is released with the model, so what it spent is part of what the model spends.",
            mend="Record what it spent as encoding: noise_multiplier and looks of Gaussian mechanisms, or epsilon.",
        )
    if run.preprocessing != "training_rows":
        return None
    return Fault(
        what="Means, deviations, levels or a vocabulary were computed from the training rows, without noise.",
        why="They are part of the model and outside the accounting: a level or word that one row brings is "
        "there for all to read.",
        mend="Fix them from public data or from the schema, or compute them by a private mechanism and add its "
        "epsilon.",
    )


@check("noise_seed_known")
def noise_seed_known(run: RunRecord) -> Found:
    """Noise from a seed known to someone."""
    if not run.noise_seed_known:
        return None
    return Fault(
        what="The noise comes from a seed that was chosen.",
        why="Whoever knows the seed can subtract the noise.",
        mend="Draw the seed from the operating system and keep it nowhere.",
    )


def _list_names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


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
    for each in checks:
        absent = tuple(field for field in each.needs if getattr(run, field) is None)
        if absent:
            missing.append((each.name, absent))
            continue
        found = each.ask(run)
        if found is None:
            clean.append(each.name)
        elif isinstance(found, CannotTell):
            untold.append((each.name, found.why))
        else:
            problems.append(Problem(code=each.name, **vars(found)))
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
    cross_example_layers,
    parameters_not_moving,
    wrong_gradients,
    wrong_batch_dimension,
    delta_too_large,
    claim_below_accounting,
    claim_by_approximation,
    search_not_accounted,
    data_dependent_preprocessing,
    noise_seed_known,
)
