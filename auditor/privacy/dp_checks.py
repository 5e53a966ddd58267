"""Checks of a private run: their types and problems, and the checks of batch sampling and optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from auditor.privacy.released_noise import SLACK
from auditor.privacy.run_record import RunRecord

R = TypeVar("R")

Severity = Literal["breaks", "harms"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One error: ``severity`` is ``breaks`` if the stated epsilon is invalid, ``harms`` if valid at a loss."""

    what: str
    why: str
    mend: str
    severity: Severity = "breaks"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A fault, with the name of the check that found it as its ``code``."""

    code: str
    severity: Severity
    what: str
    why: str
    mend: str


@dataclass(frozen=True, kw_only=True)
class CannotTell:
    """The record is insufficient for a check: ``why``, in a sentence."""

    why: str


Found = Fault | CannotTell | None


@dataclass(frozen=True, kw_only=True)
class Check(Generic[R]):
    """One check of a run; ``needs``: the fields required for it.

    ``ask`` gives the fault, None where there is none, or why the fields that are there do not tell.
    """

    name: str
    needs: tuple[str, ...]
    ask: Callable[[R], Found]


def check(*needs: str) -> Callable[[Callable[[R], Found]], Check[R]]:
    """Decorator that makes a check of a function, which has the function's name."""
    return lambda ask: Check(name=ask.__name__, needs=needs, ask=ask)


SAME = 1e-3

# ---- sampling --------------------------------------------------------------------------------------------------------


@check("sampler")
def sampler_not_poisson(run: RunRecord) -> Found:
    """Batches not sampled row by row, as the accountants assume."""
    if run.sampler in ("poisson", "weighted"):
        return None
    how = {
        "shuffled": "goes through shuffled rows in batches of one size",
        "in_order": "goes through the rows in their order",
        "with_replacement": "draws rows with replacement",
    }.get(str(run.sampler), "draws in a way of its own")
    return Fault(
        what=f"The loader {how}.",
        why="The RDP, PRV and GDP accountants all assume Poisson sampling: each row in each batch by its own "
        "coin. Other sampling can leak more than they count (Lebeda et al. 2024; Chua et al. 2024).",
        mend="Let make_private replace the loader (poisson_sampling=True), and train on the loader that it returns.",
    )


@check("sampler")
def weighted_sampler(run: RunRecord) -> Found:
    """WeightedRandomSampler: some rows are sampled more often than the accountant's single rate (opacus#813)."""
    if run.sampler != "weighted":
        return None
    return Fault(
        what="The rows are drawn by WeightedRandomSampler.",
        why="A row of large weight is drawn more often than the accountant's single sample rate, and so leaks "
        "more; and make_private takes that rate from the sampler's length, not from the rows, and drops "
        "the weights (opacus#813).",
        mend="Draw by Poisson with one rate, and put the weights into the loss; or account each row at its own rate.",
    )


@check("phases", "sample_rate")
def sample_rate_too_low(run: RunRecord) -> Found:
    """The accountant's sampling probability is smaller than the loader's."""
    rates = [phase.sample_rate for phase in run.phases or ()]
    actual = run.sample_rate or 0.0
    if min(rates) >= actual * (1.0 - SAME):
        return None
    counted = max(rates)
    if counted >= actual * (1.0 - SAME):
        return _of_which_phase("sample rate", actual, min(rates), counted)
    return Fault(
        what=f"The accountant counts a sample rate of {counted:.4g}, and the loader draws with {actual:.4g}.",
        why="A row takes part in more steps than are counted, so epsilon is larger than stated.",
        mend=f"Account with the loader's rate {actual:.4g}: attach the accountant's hook with it.",
    )


@check("batch_size", "n_rows", "phases")
def accounted_rate_too_low(run: RunRecord) -> Found:
    """The accountant counts a smaller rate than batch size over rows."""
    intended = (run.batch_size or 0.0) / (run.n_rows or 1)
    rates = [phase.sample_rate for phase in run.phases or ()]
    # A last batch that is not full makes Opacus' rate lower by up to one batch in an epoch.
    least = intended / (1.0 + intended) * (1.0 - SAME)
    if run.sample_rate is not None or min(rates) >= least:
        return None  # where the loader's own rate is known, it is held against that
    counted = max(rates)
    if counted >= least:
        return _of_which_phase("batch size over rows", intended, min(rates), counted)
    return Fault(
        what=f"The accountant counts a sample rate of {counted:.4g}, and {run.batch_size:g} of {run.n_rows:,} rows a "
        f"step are {intended:.4g}.",
        why="A row takes part in more steps than are counted, so epsilon is larger than stated.",
        mend=f"Account with {intended:.4g}, or draw batches of {counted * (run.n_rows or 0):.4g} rows.",
    )


@check("batch_size", "n_rows", "sample_rate")
def batch_not_as_intended(run: RunRecord) -> Found:
    """The sampling rate differs from batch size over rows: the effect of opacus#813."""
    intended, rate = (run.batch_size or 0.0) / (run.n_rows or 1), run.sample_rate or 0.0
    if intended / (1.0 + intended) * (1.0 - SAME) <= rate <= intended * (1.0 + SAME):
        return None
    return Fault(
        severity="harms",
        what=f"Rows are drawn with chance {rate:.4g}, and {run.batch_size:g} of {run.n_rows:,} a step are "
        f"{intended:.4g}.",
        why="Opacus takes the rate from the loader's length. A sampler whose length is not the number of rows "
        f"makes it wrong by a factor of {max(rate / intended, intended / rate):.3g}: batches of another size, and a "
        "budget spent at another pace, than was planned (opacus#813).",
        mend="Give make_private a loader without a sampler of its own, and put class weights into the loss.",
    )


@check("empty_batches")
def empty_batches_dropped(run: RunRecord) -> Found:
    """Steps left out because nothing was drawn."""
    if run.empty_batches == "kept":
        return None
    return Fault(
        what="A step whose draw is empty is left out, or drawn again.",
        why="Poisson sampling may draw nothing, and noise is released for it too. To skip the step tells that "
        "no row was drawn, and to draw again raises every row's chance above the counted rate.",
        mend="Take a noisy step on an empty batch, as DPDataLoader with its own collate function allows.",
    )


# ---- the step --------------------------------------------------------------------------------------------------------


@check("noise_multiplier")
def no_noise(run: RunRecord) -> Found:
    """Noise that is switched off."""
    if run.noise_multiplier != 0.0:
        return None
    return Fault(
        what="The noise multiplier is 0.",
        why="Without noise the released gradients determine who was in the batch: no epsilon is finite.",
        mend="Set noise_multiplier to what `auditor dp budget --epsilon` says.",
    )


@check("noise_multiplier", "phases")
def noise_below_accounting(run: RunRecord) -> Found:
    """Less noise than the accountant counts."""
    # Of several phases the last optimizer's noise may be any of them, and is none where it is below the least.
    noises = [phase.noise_multiplier for phase in run.phases or ()]
    counted, actual = min(noises), run.noise_multiplier or 0.0
    if actual >= max(noises) * (1.0 - SAME):
        return None
    if actual >= counted * (1.0 - SAME):
        return _of_which_phase("noise multiplier", actual, counted, max(noises))
    return Fault(
        what=f"The optimizer adds noise of multiplier {run.noise_multiplier:.4g}, and {counted:.4g} is accounted for.",
        why="The steps leak more than is counted.",
        mend="Use one number for both: let the accountant read it from the optimizer, by attach_step_hook.",
    )


@check("accumulated_batches")
def gradient_accumulation(run: RunRecord) -> Found:
    """Several batches summed into one noisy step that is accounted as one batch."""
    if run.accumulated_batches == 1:
        return None
    return Fault(
        what=f"{run.accumulated_batches} batches are accumulated into one step, and counted as one batch.",
        why="A row has as many chances to be in the step as there are batches, and can be in it more than "
        "once, so that its share of the sum is no longer bounded by the clipping norm.",
        mend="Draw one Poisson batch of the full size, and cut it by BatchMemoryManager.",
    )


@check("virtual_steps")
def virtual_steps(run: RunRecord) -> Found:
    """Physical batches that are cut by hand."""
    if run.virtual_steps in ("none", "batch_memory_manager"):
        return None
    return Fault(
        what="Large batches are cut into physical ones by code of your own.",
        why="Each optimizer.step() clips, adds noise and counts a step: cut by hand, noise is added to parts, "
        "the accountant counts steps that were never drawn, or gradients are used twice.",
        mend="Use opacus.utils.batch_memory_manager.BatchMemoryManager, which signals the steps to skip.",
    )


@check("divided_by")
def divided_by_actual_size(run: RunRecord) -> Found:
    """The noisy sum divided by the number of rows that happened to be drawn."""
    if run.divided_by == "other":
        return CannotTell(
            why="divided_by is other: what the noisy sum is divided by decides, and must not depend on who was drawn."
        )
    if run.divided_by != "actual_batch_size":
        return None
    return Fault(
        what="The noisy sum of gradients is divided by the number of rows that were drawn.",
        why="That number depends on who is in the data, and the noise shrinks with it; the accountant assumes "
        "a constant.",
        mend="Divide by the expected batch size, sample rate times rows, as DPOptimizer does.",
    )


@check("expected_batch_size", "sample_rate", "n_rows")
def wrong_expected_size(run: RunRecord) -> Found:
    """A constant divisor different from the expected batch size."""
    rate, n = run.sample_rate or 0.0, run.n_rows or 0
    expected = rate * n
    # Opacus rounds down, and takes a rate that can be one step in an epoch off.
    steps = 1.0 / rate
    most = n / max(steps - 1.0, 1.0)
    if math.floor(expected) <= (run.expected_batch_size or 0.0) + 1e-9 and (run.expected_batch_size or 0.0) <= most:
        return None
    return Fault(
        severity="harms",
        what=f"The sum is divided by {run.expected_batch_size:g}, and {expected:.4g} rows are expected in a step.",
        why="The divisor is constant, so the guarantee holds; but the steps are longer or shorter than the "
        "learning rate says, and a divisor meant for another loader often comes with another sample rate.",
        mend="Build the optimizer with expected_batch_size = sample_rate * rows.",
    )


@check("clipped_share")
def clipping_never_binds(run: RunRecord) -> Found:
    """A clipping norm above all gradients."""
    if (run.clipped_share or 0.0) > 0.0:
        return None
    return Fault(
        severity="harms",
        what="No row's gradient was ever clipped.",
        why="The noise is as large as the clipping norm says, and no gradient needs that much: accuracy is "
        "given away. If clipping is missing altogether, nothing bounds a row and there is no guarantee.",
        mend="Lower max_grad_norm towards the median gradient norm, taken on public data, and make sure that "
        "clipping is on.",
    )


@check("clipped_share")
def clipping_always_binds(run: RunRecord) -> Found:
    """A clipping norm below all gradients."""
    if (run.clipped_share or 0.0) < 1.0:
        return None
    return Fault(
        severity="harms",
        what="Every row's gradient was clipped.",
        why="The guarantee holds; every row then pulls with the same weight however well it is fitted "
        "already. That can be meant (normalised gradients); it is also what a loss in other units, or "
        "summed twice, looks like.",
        mend="Check the loss and its reduction; raise max_grad_norm and lower the learning rate by the same factor.",
    )


def _of_which_phase(quantity: str, actual: float, low: float, high: float) -> CannotTell:
    return CannotTell(
        why=f"The {quantity} of {actual:.4g} lies between those of the accounted phases, {low:.4g} and {high:.4g}, and "
        "nothing says in which of them it was used: lint each phase as a run of its own."
    )


# ---- what a loop was seen to do --------------------------------------------------------------------------------------


@check("step_sensitivity")
def sensitivity_above_norm(run: RunRecord) -> Found:
    """A row that changes the released sum by more than the clipping norm."""
    moved = run.step_sensitivity or 0.0
    if moved <= 1.0 + SLACK:
        return None
    return Fault(
        what=f"One row moves the released sum by {moved:.3g} clipping norms.",
        why="Noise is scaled, and epsilon counted, for one norm. A step moves by more where it does not clip each "
        "row's gradient as a whole, clips after averaging, mixes rows before it clips, or divides by the batch's own "
        "size.",
        mend="Clip each row's whole gradient before anything is summed, and divide by the expected batch size.",
    )


@check("draws", "steps_taken")
def draws_without_step(run: RunRecord) -> Found:
    """Batches drawn without an optimizer step."""
    left_out = (run.draws or 0) - (run.steps_taken or 0)
    if left_out <= 0:
        return None
    return Fault(
        what=f"{left_out:,} of {run.draws:,} drawn batches were left out.",
        why="Which batches are left out, for instance small ones, tells how many rows were drawn, and the accountant "
        "assumes a noisy step for every draw.",
        mend="Take a noisy step for every batch that is drawn, whatever its size.",
    )


@check("draws", "steps_taken", "repeated_draws")
def steps_without_draw(run: RunRecord) -> Found:
    """Several steps on the same rows."""
    more, again = (run.steps_taken or 0) - (run.draws or 0), run.repeated_draws or 0
    if more <= 0 and not again:
        return None
    what = f"{more:,} steps were taken on rows that had had theirs" if more > 0 else f"{again:,} batches came again"
    return Fault(
        what=f"{what}.",
        why="The accountant assumes that each step draws its rows anew. A row that is known to be in the next step "
        "gains nothing from sampling, so epsilon is larger than stated.",
        mend="Draw a new batch for every step.",
    )


@check("steps_taken", "phases")
def steps_not_counted(run: RunRecord) -> Found:
    """More steps than the accountant counts."""
    counted = sum(phase.steps for phase in run.phases or ())
    more = (run.steps_taken or 0) - counted
    if more <= 0:
        return None
    return Fault(
        what=f"{run.steps_taken:,} steps were taken, and {counted:,} are accounted for.",
        why="Every noisy step spends.",
        mend="Attach the accountant's hook to the optimizer before the first step.",
    )


@check("noise_draws", "steps_taken")
def steps_without_noise(run: RunRecord) -> Found:
    """Steps at which no fresh noise of the stated size was added."""
    without = (run.steps_taken or 0) - (run.noise_draws or 0)
    if without <= 0:
        return None
    return Fault(
        what=f"At {without:,} of {run.steps_taken:,} steps no fresh noise of the stated size was added.",
        why="Each step is accounted with noise of its own. A step without it, with less, or with that of another step "
        "releases its rows' gradients.",
        mend="Step by Opacus' optimizer alone, with one generator that is never seeded anew.",
    )


@check("moved_outside_steps")
def moved_outside_steps(run: RunRecord) -> Found:
    """Weights that changed and that no private step had changed."""
    if not run.moved_outside_steps:
        return None
    times = "once" if run.moved_outside_steps == 1 else f"{run.moved_outside_steps:,} times"
    return Fault(
        what=f"Weights moved {times} outside the private optimizer's steps.",
        why="What moved them, such as plain training of a head, weights averaged with others or reloaded, saw neither "
        "clipping nor noise, unless it knew nothing of these rows, which is not to be seen here.",
        mend="Train every weight by the private optimizer, and start from weights that saw none of these rows.",
    )
