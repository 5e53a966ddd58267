"""Order sensitivity: whether a model asked to choose selects an option or a position in the list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from auditor.statistics.values import RatioBetween, RatioOfTotals, bounded_mean
from probes.language.forced_choice import LETTERS, MAX_NEW_TOKENS, Choice, choices_text, chosen_in
from probes.language.language_options import Asking, sentence
from probes.language.preference_shares import share_between
from probes.language.sense_check import BY_CHANCE, N_OPTIONS, accuracy_of, easy_questions, not_shown
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.chat import How

METHOD = "rotated_options"


class OrderSensitivity(BaseProbe):
    """The rate of changed answers when the same options are reordered.

    Each question is asked once in each rotation of an order drawn for it, so that each option stands once at each
    place, and its answer is read as by :mod:`probes.language.forced_choice`. A question is open where its answers are
    the same as far as there are any, and one is missing.

    - ``order_sensitivity``: Clopper and Pearson's interval where no question is open, else between what it would be
      with all of them one way and the other (:class:`~auditor.statistics.values.RatioBetween`).
    - ``position_share``: Over questions that were answered in every order.

    The questions are the tool's own, 96 of common knowledge with three options each, in English: whoever knows the
    answers and is moved by the order is moved wherever it knows less. A model that is not shown to choose rightly more
    often than one in three passes nothing; one that answers none leaves everything open between 0 and 1.

    n_questions: as many of them, drawn. chat, system: see :class:`~probes.language.language_options.Asking`.

    Raises NotApplicableError for a model that writes no texts, ModelError where more than 5 % of the calls failed.

    Source: Pezeshkpour and Hruschka, Findings of NAACL 2024 (arXiv:2308.11483); Zheng et al., ICLR 2024
    (arXiv:2309.03882).
    """

    name = "order_sensitivity"
    pillar = "language"
    goal = "Does the model choose an option, or a place in the list?"
    citation = "Pezeshkpour and Hruschka, Findings of NAACL 2024; Zheng et al., ICLR 2024"
    methods = (METHOD,)
    needs = (Need.LANGUAGE_MODEL,)
    questions = (
        AuditQuestion("option_order", metrics=("order_sensitivity",), form="percent", headline=("order_sensitivity",)),
        AuditQuestion("option_order"),
    )
    ideal_when_same = {"order_sensitivity": "scores"}
    untrusted_options = allow_untrusted("n_questions", "chat", reads=("system",))
    metrics = define_metrics(
        """
        order_sensitivity: share of questions whose options in another order get another answer; [0, 1], ideal 0; at 0.1
          one answer in ten is made by the order; Pezeshkpour and Hruschka, Findings of NAACL 2024
        position_share: share of answers that name the option at a place in the list; [0, 1], no ideal; who chooses
          options names each place in a third of the answers, who chooses places one of them more; Zheng et al., ICLR
          2024
        choice_accuracy: share of right answers in all orders; [0, 1], ideal 1; at 1/3 the model answers by chance;
          Zheng et al., ICLR 2024
        """
    )

    def __init__(self, *, n_questions: int = 64, chat: How = "auto", system: str | None = None) -> None:
        whole_number("n_questions", n_questions, 2)
        self.n_questions = n_questions
        self.asking = Asking(chat, system)

    @property
    def workload(self) -> str:
        """The amount of work, in words, for the progress display."""
        n = min(self.n_questions, len(easy_questions())) * N_OPTIONS
        return f"{n:,} replies of at most {MAX_NEW_TOKENS} tokens"

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """The rate, the share of each position and the accuracy; see the class."""
        writer = self.asking.writer(model)
        if not writer.repeats:
            raise NotApplicableError("Needs the same reply to the same question: the server takes no temperature of 0.")
        questions = easy_questions()
        size = min(self.n_questions, len(questions))
        drawn = [questions[i] for i in sorted(rng.choice(len(questions), size, replace=False).tolist())]
        first = [rng.permutation(N_OPTIONS).tolist() for _ in drawn]
        orders = [order[k:] + order[:k] for order in first for k in range(N_OPTIONS)]
        found = chosen_in(writer, [q for q in drawn for _ in range(N_OPTIONS)], orders)
        return order_measurements(found, orders, sentence(writer.describe()))


def order_measurements(
    choices: Sequence[Choice], orders: Sequence[Sequence[int]], description: str = ""
) -> list[Measurement]:
    """The measurements of answers (n * N_OPTIONS,), question by question, and their option orders."""
    chosen = [choices[i : i + N_OPTIONS] for i in range(0, len(choices), N_OPTIONS)]
    n = len(chosen)
    answers = [{c.option for c in some if c.option is not None} for some in chosen]
    complete = np.asarray([all(c.option is not None for c in some) for some in chosen])
    changed = np.asarray([len(some) > 1 for some in answers])
    is_open = ~changed & ~complete
    accuracy = accuracy_of(chosen)
    detail = " ".join(
        filter(None, (choices_text(choices), f"{n:,} questions in {N_OPTIONS} orders each.", description))
    )
    return [
        Measurement(
            metric="order_sensitivity",
            method=METHOD,
            estimate=_rate(changed, is_open),
            n_samples=n,
            ideal=0.0,
            detail=f"{int(changed.sum()):,} of {n:,} changed, {int(is_open.sum()):,} are open. {detail}",
            weak=not_shown(accuracy),
        ),
        Measurement(
            metric="choice_accuracy",
            method=METHOD,
            estimate=accuracy,
            n_samples=n,
            ideal=1.0,
            chance=BY_CHANCE,
            detail=detail,
        ),
        *_of_places(choices, orders, complete),
    ]


def _rate(has_changed: BoolArray, is_open: BoolArray) -> Proportion | RatioOfTotals | RatioBetween | Undefined:
    if not is_open.any():
        return Proportion(successes=int(has_changed.sum()), n=len(has_changed))
    least = has_changed.astype(np.float64)
    return share_between(least, least + is_open, np.ones(len(has_changed)), int(is_open.sum()), len(has_changed))


def _of_places(choices: Sequence[Choice], orders: Sequence[Sequence[int]], complete: BoolArray) -> list[Measurement]:
    """How often each place is named, over the questions that were answered in every order."""
    places = np.asarray(
        [-1 if c.option is None else list(order).index(c.option) for c, order in zip(choices, orders, strict=True)]
    ).reshape(-1, N_OPTIONS)[complete]
    return [
        Measurement(
            metric="position_share",
            method=METHOD,
            estimate=bounded_mean((places == place).mean(axis=1), low=0.0, high=1.0)
            if len(places)
            else Undefined(reason="no question was answered in every order"),
            n_samples=len(places),
            at={"position": LETTERS[place]},
            detail=f"over {len(places):,} questions that were answered in every order",
        )
        for place in range(N_OPTIONS)
    ]
