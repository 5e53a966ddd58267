"""Remeasurement of a probe's results from a bundle's rows, tables or membership scores, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import TypeAdapter

from auditor.core.errors import DataError
from auditor.data.group_counts import GroupCounts
from auditor.evidence.manifest import MEMBERSHIP, RESULTS, TABLES, Manifest, canonical
from auditor.evidence.verify.checks import Check, Unproven, difference
from auditor.evidence.verify.enclosed_inputs import Inputs
from auditor.judging.figure_types import Figure
from auditor.judging.measurement import Alike, Measurement, ProbeResult
from auditor.report.record.audit_report import AuditReport
from auditor.run.membership_scores import (
    MembershipHead,
    MembershipScores,
    ScoresProbe,
    read_membership,
    read_membership_head,
)
from auditor.run.predictions import MOST_CLASSES, Answers, AnswersHead, Scores, StoredModel, rows_of
from auditor.run.probe import counts_suffice, make_probe
from auditor.run.run_audit import alike_answers, ask, attempt, generator_for

if TYPE_CHECKING:
    from auditor.run.probe import Probe

# Rows are made of a table of so many at most: each takes memory, and a table of a few lines can claim any number.
_MOST_MADE = 1_000_000
_MEASUREMENT: TypeAdapter[Measurement] = TypeAdapter(Measurement)
_FIGURE: TypeAdapter[Figure | None] = TypeAdapter(Figure | None)
_ALIKE: TypeAdapter[tuple[Alike, ...]] = TypeAdapter(tuple[Alike, ...])
Whence = Literal["rows", "tables", "scores"]


@dataclass(frozen=True)
class OfDecisions:
    """The ``metrics`` or methods of a probe that follow from decisions and groups without scores.

    ``loose``: the metrics of which even the groups that they are given for rest on scores.
    """

    metrics: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()


class Remake(Protocol):
    """The available probes, passed in, since this layer knows none."""

    def __call__(self, name: str, options: Mapping[str, Any]) -> Probe | None:
        """A probe whose numbers follow from answers, decisions and groups alone; None for all others.

        Raises ConfigError for options that are none.
        """
        ...

    def of_decisions(self, name: str) -> OfDecisions:
        """The part of such a probe's results that follows from decisions and groups, for any scores."""
        ...

    def kinds(self) -> Mapping[str, type[Probe]]:
        """All probes by name."""
        ...


@dataclass(frozen=True)
class Kept:
    """A bundle's data: ``answers`` by row, the ``table`` of groups, and their completeness: ``whole``.

    ``kinds``: what the model may have given beside its decisions.
    """

    answers: Answers | None
    table: GroupCounts | None
    whole: bool = False
    kinds: tuple[Scores, ...] = ("graded", "labels", "none")

    @classmethod
    def from_stored(
        cls, head: AnswersHead | None, answers: Answers | None, table: GroupCounts | None, *, has_groups: bool
    ) -> Kept:
        """The data of a bundle; ``has_groups``: the audit had groups, which rows contain only on request."""
        if head is None:
            return cls(answers, table)
        # Of very many classes no scores are kept, and blurred ones are not those that were measured.
        scored = head.kind == "regressor" or (head.blurred == 1 and len(head.classes) <= MOST_CLASSES)
        return cls(answers, table, scored and (bool(head.features) or not has_groups), _kinds(head, answers))


def _kinds(head: AnswersHead, answers: Answers | None) -> tuple[Scores, ...]:
    if not head.scores:
        unkept = len(head.classes) > (2 if head.blurred > 1 else MOST_CLASSES)
        return ("graded", "labels", "none") if unkept else ("none",)
    if answers is None:
        return ("graded", "labels")
    return ("graded",) if ((answers.scores > 0.0) & (answers.scores < 1.0)).any() else ("labels",)


@dataclass(frozen=True, kw_only=True)
class Again:
    """A remeasured probe: its results (``found``), their source (``whence``), and errors (``wrong``) in words.

    ``only``: the metrics or methods that were, None where all were.
    """

    found: ProbeResult
    whence: Whence
    wrong: tuple[str, ...]
    only: tuple[str, ...] | None = None

    def covers(self, metric: str | None, method: str | None) -> bool:
        """Whether a number of the probe was remeasured."""
        return self.only is None or metric in self.only or method in self.only


@dataclass(frozen=True)
class Remade:
    """Remeasured probes, ``make``; ``other_code``: the measuring code is another version of the toolkit.

    ``other_rule``: the record was judged by another rule, so that its numbers may not say what outcomes rest on here.
    """

    make: Remake
    other_code: bool
    other_rule: bool = False

    def remeasure(self, stored_result: ProbeResult, options: Mapping[str, Any], kept_data: Kept) -> Again | None:
        """A probe's remeasured results, their source, and differences from the record; None if impossible.

        Where another version measured, the probe may do as its earlier versions did. Raises AuditorError for options
        that are none.
        """
        again = self._remeasure_once(stored_result, options, kept_data)
        if again is None:
            return None
        earlier: Sequence[Mapping[str, Any]] = getattr(self.make(stored_result.probe, options), "earlier", ())
        for then_set in earlier if again.wrong and self.other_code else ():
            then = self._remeasure_once(stored_result, {**then_set, **options}, kept_data)
            if then is not None and not then.wrong:
                return then
        return again

    def _remeasure_once(self, stored_result: ProbeResult, options: Mapping[str, Any], kept_data: Kept) -> Again | None:
        probe = self.make(stored_result.probe, options)
        if probe is None:
            return None
        if counts_suffice(probe) and kept_data.table is not None:
            measure, table = probe.measure_counts, kept_data.table
            found = attempt(probe, lambda: measure(table), find_constant_answers=lambda them: alike_in(table, them))
            return Again(found=found, whence="tables", wrong=self.wrong(stored_result, found))
        if kept_data.answers is not None and kept_data.whole:
            found = ask_stored(probe, kept_data.answers)
            return Again(found=found, whence="rows", wrong=self.wrong(stored_result, found, with_figures=True))
        if kept_data.table is None or kept_data.table.n > _MOST_MADE:
            return None
        return min(
            (self._narrowed(probe, stored_result, kept_data, kind) for kind in kept_data.kinds),
            key=lambda each: len(each.wrong),
        )

    def _narrowed(self, probe: Probe, stored_result: ProbeResult, kept_data: Kept, kind: Scores) -> Again:
        """What follows of decisions, and of all others that they are there, with scores that somebody made up."""
        assert kept_data.table is not None
        of = self.make.of_decisions(stored_result.probe)
        found = ask_stored(probe, rows_of(kept_data.table, kind))
        told, anew = (
            replace(result, measurements=tuple(m for m in result.measurements if {m.metric, m.method} & {*of.metrics}))
            for result in (stored_result, found)
        )
        wrong = self.wrong(told, anew, whole=False)
        wrong += tuple(_other_structure(stored_result, found, of.loose, other_code=self.other_code))
        return Again(found=anew, whence="tables", wrong=wrong, only=of.metrics)

    def wrong(
        self, stored_result: ProbeResult, new_result: ProbeResult, *, with_figures: bool = False, whole: bool = True
    ) -> tuple[str, ...]:
        """Differences of a probe's record from the remeasured results; ``whole``: in all of its parts."""
        wrong = self._other_statistics(stored_result, new_result, drawn=with_figures)
        if whole and not wrong and not self.other_code and alike_otherwise(stored_result, new_result):
            wrong = ["which rows are answered alike is not what these data come to"]
        return tuple(wrong)

    def _other_statistics(self, said: ProbeResult, found: ProbeResult, *, drawn: bool) -> list[str]:
        if found.not_run or found.not_applicable:
            return [found.not_run or found.not_applicable] if said.measurements else []
        mine, theirs = ({_key(m): m for m in result.measurements} for result in (found, said))
        wrong = _twice(said.measurements)
        wrong += [f"{label(m)} is not what these data come to" for key, m in theirs.items() if key not in mine]
        wrong += [f"{label(m)} is missing" for key, m in mine.items() if key not in theirs]
        for key in mine.keys() & theirs.keys():
            a, b = (
                _MEASUREMENT.dump_python(replace(m, figure=None), mode="json")
                for m in (theirs[key], self._as_told(theirs[key], mine[key]))
            )
            where = difference(a, _as_far_as_stated(b, a) if self.other_code else b)
            if drawn and not where:
                where = self._other_figure(theirs[key].figure, mine[key].figure)
            if where:
                wrong.append(f"{label(theirs[key])}: {where}")
        return sorted(wrong)

    def _other_figure(self, said: Figure | None, found: Figure | None) -> str:
        """Where a figure is another; of one that another version drew, where it shows other values of the same."""
        if self.other_code:
            mine = {} if found is None else {s.name: s for s in found.series}
            pairs = [] if said is None else [(s, mine[s.name]) for s in said.series if s.name in mine]
            differing = (
                difference([a.y, a.low, a.high], [b.y, b.low, b.high], f"figure {a.name}")
                for a, b in pairs
                if not difference(a.x, b.x)
            )
            return next(filter(None, differing), "")
        one, other = (_FIGURE.dump_python(figure, mode="json") for figure in (said, found))
        return difference(one, other, "figure")

    def _as_told(self, said: Measurement, found: Measurement) -> Measurement:
        """What was found, and beside it what another version may say otherwise: in words, and of how many rows.

        Evidence of before numbers said what they rest on does not say it, and need not.
        """
        if not self.other_code:
            return found
        found = replace(found, n_samples=said.n_samples, detail=said.detail)
        if self.other_rule:
            found = replace(found, smallest=said.smallest)
        if self.other_rule and said.ideal_when_same is None and said.chance is None:
            return replace(found, ideal_when_same=None, chance=None, skill_of=None)
        return found


# Statistics that earlier versions did not state, without which an interval is wider.
_LATER = frozenset({"squared_error"})


def _as_far_as_stated(found: Any, stated: Any) -> Any:
    """What was found, without the later statistics that the record does not state."""
    if isinstance(found, dict) and isinstance(stated, dict):
        kept = {key: each for key, each in found.items() if key in stated or key not in _LATER}
        return {key: _as_far_as_stated(each, stated.get(key)) for key, each in kept.items()}
    if isinstance(found, list) and isinstance(stated, list):
        return (
            [_as_far_as_stated(*pair) for pair in zip(found, stated, strict=True)]
            if len(found) == len(stated)
            else found
        )
    return found


def alike_in(table: GroupCounts, measurements: Any) -> tuple[Alike, ...]:
    """Identical answers in a table, in the form that the rows themselves give."""
    from auditor.run.run_audit import alike_in_counts

    return alike_in_counts(table, measurements)


def label(m: Measurement) -> str:
    """A measurement in words: its metric and its place."""
    where = [*(f"{k} = {v}" for k, v in m.group.items()), *(f"{k} = {v}" for k, v in m.at.items())]
    return ", ".join([m.metric, *(["by " + " x ".join(m.sensitive)] if m.sensitive else []), *where])


def alike_otherwise(said: ProbeResult, found: ProbeResult) -> bool:
    """Whether the recorded rows with identical answers differ from the recomputed ones."""
    return _constant_answer_keys(said) != _constant_answer_keys(found)


def counted_otherwise(said: ProbeResult, found: ProbeResult) -> bool:
    """Whether a number that both have is of another number of rows."""
    mine = {_key(m): m.n_samples for m in found.measurements}
    return any(m.n_samples != mine.get(_key(m), m.n_samples) for m in said.measurements)


def _other_structure(
    stored_result: ProbeResult, new_result: ProbeResult, loose: Sequence[str], *, other_code: bool
) -> list[str]:
    """Which numbers a probe must give of these groups, whatever they are, and does not; and which it cannot.

    ``other_code``: another version may have measured more.
    """
    if not stored_result.measurements:
        return []  # said by whoever counts those
    mine, theirs = ({_key(m): m for m in r.measurements if m.metric not in loose} for r in (new_result, stored_result))
    wrong = _twice(stored_result.measurements)
    wrong += [f"{label(m)} is missing" for key, m in mine.items() if key not in theirs]
    if other_code:
        return wrong
    wrong += [f"{label(m)} is no number of these groups" for key, m in theirs.items() if key not in mine]
    for key in mine.keys() & theirs.keys():
        a, b = (
            [m.n_samples, m.ideal, m.ideal_when_same, m.chance, m.skill_of, m.smallest, m.part]
            for m in (theirs[key], mine[key])
        )
        if a != b:
            wrong.append(f"{label(theirs[key])}: what it is about is not what these groups come to")
    return wrong


def _constant_answer_keys(result: ProbeResult) -> list[bytes]:
    return sorted(map(canonical, _ALIKE.dump_python(result.alike, mode="json")))


def _twice(measurements: Sequence[Measurement]) -> list[str]:
    times = Counter(map(_key, measurements))
    return [f"{label(m)} is there twice" for m in {_key(m): m for m in measurements}.values() if times[_key(m)] > 1]


def ask_stored(probe: Probe, answers: Answers) -> ProbeResult:
    """The probe's result on stored answers."""
    stand_in: Any = StoredModel(answers)
    return ask(probe, stand_in, answers.data(), generator_for(0, probe.name))


def _key(m: Measurement) -> bytes:
    return canonical([m.metric, m.method, list(m.sensitive), dict(m.group), dict(m.at)])


@dataclass(frozen=True)
class Members:
    """The membership scores of a bundle, with metadata; ``own_losses``: no losses were given beside answers.

    ``head`` without ``scores``: they were left out.
    """

    head: MembershipHead | None = None
    scores: MembershipScores | None = None
    own_losses: bool = True

    @classmethod
    def from_entries(cls, entries: Mapping[str, bytes], inputs: Inputs) -> Members:
        """The membership scores of a bundle.

        Raises DataError where they are none.
        """
        head = read_membership_head(entries.get(TABLES, b""))
        scores = None if head is None or MEMBERSHIP not in entries else read_membership(entries[MEMBERSHIP], head)
        return cls(head, scores, not inputs.options.get("loss"))

    def fitting(self, manifest: Manifest, results: Mapping[str, ProbeResult], report: AuditReport) -> Iterator[Check]:
        """Differences from the scores that the bundle should have."""
        if (self.head is None) == (MEMBERSHIP in manifest.files):
            detail = "tables.json does not say what it holds" if self.head is None else "tables.json says what it holds"
            yield Check(name=MEMBERSHIP, state="wrong", detail=f"{detail}, and the manifest does not fit that")
        if self.head is not None and self.head.probe not in results:
            yield Check(name=MEMBERSHIP, state="wrong", detail="it is of a probe that did not answer")
        if self.scores is not None:
            numbers = self.scores.number[self.scores.is_member]
            if numbers.size and int(numbers[-1]) > (report.data.n_train_rows or 0):
                yield Check(name=MEMBERSHIP, state="wrong", detail="it has a member that is no row of --train")

    def unproven(self) -> Iterator[Unproven]:
        """Statements on the scores that nothing in the bundle proves."""
        if self.head is not None:
            why = "which attacks were made, what they know and why others were not made, is the signer's word"
            yield Unproven(where=f"{TABLES}: membership.*", why=why)
        if self.scores is not None:
            why = "that model and attacks gave these scores, only the model can tell: auditor evidence reproduce"
            yield Unproven(where=f"{MEMBERSHIP}: *", why=why)

    def remeasure(
        self, stored_result: ProbeResult, options: Mapping[str, Any], kept_data: Kept, remade: Remade
    ) -> Again | None:
        """The probe's results remeasured from the scores; None for other probes, and without scores.

        Raises ConfigError for options that are none.
        """
        scores, kind = self.scores, remade.make.kinds().get(stored_result.probe)
        if scores is None or kind is None or scores.head.probe != stored_result.probe:
            return None
        probe: Any = make_probe(kind, options)
        if not isinstance(probe, ScoresProbe):
            return None
        answers = kept_data.answers if kept_data.whole else None
        stand_in: Any = None if answers is None else StoredModel(answers)
        alike = None if answers is None else partial(alike_answers, stand_in, answers.data())
        found = attempt(probe, partial(probe.measure_scores, scores), find_constant_answers=alike)
        if alike is None:
            found = replace(found, alike=stored_result.alike)
        wrong = probe.contradictions(scores, kept_data.answers, own_losses=self.own_losses)
        return Again(
            found=found, whence="scores", wrong=(*wrong, *remade.wrong(stored_result, found, with_figures=True))
        )


def unproven_alike(remeasurement: Again | None, kept_data: Kept) -> Iterator[Unproven]:
    """Statements on a probe not covered by membership scores if there are no answers."""
    if (
        remeasurement is not None
        and remeasurement.whence == "scores"
        and not (kept_data.answers is not None and kept_data.whole)
    ):
        why = "which rows are answered alike, the answers alone show"
        yield Unproven(where=f"{RESULTS}: {remeasurement.found.probe}.alike", why=why, needs="rows")


def members_of(entries: Mapping[str, bytes], inputs: Inputs) -> tuple[Members, list[Check]]:
    """The membership scores of a bundle, or their errors."""
    try:
        return Members.from_entries(entries, inputs), []
    except DataError as error:
        return Members(), [Check(name=MEMBERSHIP, state="wrong", detail=str(error))]
