"""The probe interface: one question about a model, answered with measurements."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np

from auditor.core.errors import ConfigError, NotApplicableError, OtherKindError, did_you_mean
from auditor.judging.measurement import Answer, AuditQuestion, Definition, Measurement, Pillar, ProbeResult
from auditor.statistics.clusters import CLUSTERED, FEWEST_UNLIMITED, Clustered, fewest_effective
from auditor.statistics.estimate import Exact, Undefined, UpperBound
from auditor.statistics.values import RatioBetween, RatioOfTotals

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.data.audit_data_parts import Design, Part
    from auditor.data.group_counts import FeatureCounts, GroupCounts
    from auditor.data.score_counts import Asked, ScoreCounts
    from auditor.models.audited_model import AuditedModel


# What the tool itself says of files, and of servers, which have none.
FILE_QUESTIONS = (AuditQuestion("file"),)
SERVER_QUESTIONS = (AuditQuestion("server"),)


class Need(Enum):
    """A required input of a probe: its name, and the way to supply it."""

    # The kind of model is what it is: no flag supplies another, and the reason printed names the kind.
    CLASSIFIER = ("a classifier", "")
    CLASSES = ("a classifier, or rows alone", "")
    MODEL = ("a model", "")
    REGRESSOR = ("a regression model", "")
    PREDICTOR = ("a classifier or a regression model", "")
    LANGUAGE_MODEL = ("a language model", "")
    LOG = ("the log of an evaluation", "add --log PATH")
    GENERATED = ("texts that a model wrote", "add --predictions FILE --generated COLUMN")
    DATA = ("evaluation data", "add --data FILE")
    LABELS = ("true labels", "add --target COLUMN")
    TEXT = ("texts", "add --text COLUMN")
    SENSITIVE = ("a sensitive feature", "add --sensitive COLUMN")
    TRAIN = ("the model's training data", "add --train FILE")

    def __init__(self, description: str, remedy: str) -> None:
        self.what = description
        self.how = remedy


class Probe(Protocol):
    """One question about a model; the constructor only stores keyword options.

    ``name``: its key in the table. ``goal``: the question in one sentence. ``methods``: its ways of asking, named as
    published. ``needs``: inputs without which it is NOT_APPLICABLE. ``citation``: where the method is defined.

    More may be declared: ``exact``, the metrics that are known without sampling error, each with the reason; see
    :func:`known_exactly`. ``earlier``, sets of options with which it measures as its earlier versions did, by which
    their evidence is verified. ``ideal_when_same``, the metrics that a model reaches the ideal of by answering all rows
    the same; see :func:`with_declared`. ``power``, what it can see, as :class:`auditor.statistics.estimate.Power`.
    ``takes``, which of "cluster" and "weight" of the rows it takes account of, none by default; ``reads_rows``, whether
    it looks at the evaluation rows; see :func:`not_designed_for`. ``metrics``, the definitions of its metrics; see
    :func:`~auditor.judging.measurement.define_metrics`. ``untrusted_options``, which of its options an audit.toml that
    was merely found in the folder may set; see :func:`allow_untrusted`. ``from_decisions``, the metrics or methods of a
    classifier that follow from its decisions, true classes and groups alone. ``questions``, what its numbers answer in
    everyday language, as :class:`~auditor.judging.measurement.AuditQuestion`. ``over_all_rows``, whether all its
    numbers are over the evaluation rows as they are, each once, so that its counts agree with those of other such
    probes. ``measure_planted``, the measurements of a twin of the model in which one number's true value is known, for
    planted controls (:mod:`auditor.run.planted`). ``always_asked``, whether it is asked wherever there are labels, and
    of every language model.
    """

    name: ClassVar[str]
    pillar: ClassVar[Pillar]
    goal: ClassVar[str]
    citation: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[Need, ...]]

    def __init__(self, **options: Any) -> None: ...

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """Measure; without judging, printing, or changing the model.

        Raises NotApplicableError where an input is missing; anything else it raises makes the probe NOT_RUN.
        """
        ...


class BaseProbe(Probe):
    """A probe with the types of its attributes declared; it takes no options unless it has an ``__init__``."""

    ideal_when_same: ClassVar[Mapping[str, Answer | Literal["nothing"]]]
    exact: ClassVar[Mapping[str, str]]
    takes: ClassVar[tuple[Part, ...]]
    reads_rows: ClassVar[bool]
    metrics: ClassVar[tuple[Definition, ...]]
    questions: ClassVar[tuple[AuditQuestion, ...]]
    over_all_rows: ClassVar[bool]
    always_asked: ClassVar[bool]
    from_decisions: ClassVar[tuple[str, ...]]

    def __init__(self) -> None: ...


@runtime_checkable
class CountsProbe(Probe, Protocol):
    """A probe that needs only :class:`~auditor.data.group_counts.GroupCounts`, so rows may be streamed past the model
    once.

    Where its options need the rows themselves, its attribute ``counts_suffice`` is False; without one it is True.
    """

    def measure_counts(self, counts: GroupCounts) -> Sequence[Measurement]:
        """The measurements, from the counts alone."""
        ...


def counts_suffice(probe: Probe) -> TypeGuard[CountsProbe]:
    """Whether the probe, with its options, can measure from counts alone."""
    return isinstance(probe, CountsProbe) and bool(getattr(probe, "counts_suffice", True))


def from_decisions(probe: Probe | type[Probe]) -> tuple[str, ...]:
    """The metrics or methods of a probe that follow from decisions, true classes and groups, for any scores."""
    return tuple(getattr(probe, "from_decisions", ()))


@dataclass(frozen=True)
class Streamed:
    """Counts of streamed rows: ``counts`` of true classes and decisions, ``scores`` of scores, and, if a probe requests
    them, ``features`` of the levels of features.

    ``sample``: some of the rows themselves, about which the ``model`` may be asked again, or why those that were
    kept are no sample.
    """

    counts: GroupCounts
    scores: ScoreCounts
    features: FeatureCounts | None = None
    model: AuditedModel | None = None
    sample: AuditData | Undefined | None = None


def needs_rows_themselves(probe: Probe) -> bool:
    """Whether the probe looks at rows and can measure from no counts of them."""
    return looks_at_rows(probe) and not counts_suffice(probe) and not isinstance(probe, StreamedProbe)


def note_on_streamed(streamed: Streamed | None) -> str:
    """What readers must know of numbers of streamed rows."""
    sample = None if streamed is None else streamed.sample
    learns = ""
    if streamed is not None and sample is not None and not isinstance(sample, Undefined):
        learns = (
            f" What needs the rows themselves has {len(sample):,} of them." if len(sample) < streamed.counts.n else ""
        )
    return (
        "Rows were counted as they were read (--stream): numbers of scores are of a grid, with its error in their "
        f"intervals.{learns}"
    )


@runtime_checkable
class StreamedProbe(Probe, Protocol):
    """A probe that can also measure from counts of decisions and scores of streamed rows."""

    @property
    def stream_needs(self) -> Asked:
        """The score statistics that it needs exactly; all others have the error of a grid."""
        ...

    def measure_streamed(self, streamed: Streamed) -> Sequence[Measurement]:
        """The measurements; those that need the rows themselves are undefined, with the reason.

        Raises NotApplicableError where :meth:`Probe.measure` would.
        """
        ...


def missing_needs(probe: type[Probe] | Probe, model: AuditedModel, data: AuditData | None) -> list[Need]:
    """The probe's unmet needs, in the order in which a user would supply them."""
    if model.rows_alone and not (probe.needs and set(probe.needs) <= _MET_BY_ROWS):
        return [Need.MODEL]
    held = {
        Need.MODEL: True,
        Need.CLASSIFIER: model.kind == "classifier",
        Need.CLASSES: model.kind == "classifier" or model.rows_alone,
        Need.REGRESSOR: model.kind == "regressor",
        Need.PREDICTOR: model.kind in ("classifier", "regressor"),
        Need.LANGUAGE_MODEL: model.kind == "language_model" and model.can_be_asked,
        Need.LOG: data is not None and data.recorded is not None and data.recorded.graded is not None,
        Need.GENERATED: data is not None and data.recorded is not None and data.recorded.texts is not None,
        Need.DATA: data is not None,
        Need.LABELS: data is not None and (data.y_true is not None or data.target_values is not None),
        Need.TEXT: data is not None and data.modality == "text",
        Need.SENSITIVE: data is not None and data.sensitive_features is not None,
        Need.TRAIN: data is not None and (data.members is not None or model.rows_alone),
    }
    missing: list[Need] = [need for need in probe.needs if not held[need]]
    # A model of the wrong kind is all there is to say: no flag would help.
    return [need for need in missing if need in _KINDS_OF_MODEL] or missing


_MET_BY_ROWS = {Need.CLASSES, Need.DATA, Need.LABELS, Need.TEXT, Need.SENSITIVE, Need.TRAIN}
_KINDS_OF_MODEL = (Need.MODEL, Need.CLASSIFIER, Need.CLASSES, Need.REGRESSOR, Need.PREDICTOR, Need.LANGUAGE_MODEL)
_KIND_IN_WORDS = {
    "classifier": "a classifier",
    "regressor": "a regression model",
    "language_model": "a language model",
    "other": "a model of another task",
}


def not_applicable(needs: Sequence[Need], model: AuditedModel) -> NotApplicableError:
    """The error for unmet needs of a model: the wrong kind of model, or the input to provide."""
    words = getattr(model, "what", None) or _KIND_IN_WORDS[model.kind]
    here = "there is none" if model.rows_alone else f"this model is {words}"
    said = [f"{need.what}: {here if need in _KINDS_OF_MODEL else need.how}" for need in needs]
    sort = OtherKindError if any(need in _KINDS_OF_MODEL for need in needs) else NotApplicableError
    return sort("Needs " + "; ".join(said) + ".")


def blank_result(probe: type[Probe] | Probe) -> ProbeResult:
    """The result of a probe before it has answered: what its class says of it."""
    questions = tuple(getattr(probe, "questions", ()))
    return ProbeResult(probe=probe.name, pillar=probe.pillar, citation=probe.citation, questions=questions)


def looks_at_rows(probe: type[Probe] | Probe) -> bool:
    """Whether its numbers are on the evaluation rows: as declared, by default unless only for language models."""
    declared: bool | None = getattr(probe, "reads_rows", None)
    if declared is not None:
        return declared
    return Need.LANGUAGE_MODEL not in probe.needs or any(need in _OF_ROWS for need in probe.needs)


def no_data() -> AuditData:
    """Data without rows, for a probe that brings its own."""
    from auditor.data.audit_data import AuditData

    return AuditData(X=np.empty(0, object))


def not_designed_for(probe: type[Probe] | Probe, design: Design | None) -> str:
    """The reason why a probe does not support dependent or weighted rows; "" if it does.

    An interval that takes rows as independent is wrong of clusters, and a share of rows is another number than that of
    their weight: what a probe does not take account of makes it NOT_APPLICABLE, and is never silently left out.
    """
    takes: Sequence[Part] = getattr(probe, "takes", ())
    lacking = [] if design is None or not looks_at_rows(probe) else [p for p in design.parts if p not in takes]
    return " ".join(_CANNOT[part].format(what=f"Numbers of {probe.name}") for part in lacking)


def of_design(measurements: Sequence[Measurement], design: Design | None) -> tuple[Measurement, ...]:
    """A probe's measurements on such rows; sampled ones that ignore the design are marked not applicable.

    Those that take account of it say where they hold for the sizes and weights at hand alone.
    """
    if design is None or not design.parts:
        return tuple(measurements)
    return tuple(
        _as_far_as_limited(m, m.estimate, design)
        if isinstance(m.estimate, CLUSTERED)
        else m
        if isinstance(m.estimate, (Exact, UpperBound, Undefined, RatioOfTotals, RatioBetween))
        else replace(
            m,
            estimate=Undefined(
                reason=" ".join(_CANNOT[part].format(what=m.metric) for part in design.parts), inapplicable=True
            ),
        )
        for m in measurements
    )


def _as_far_as_limited(m: Measurement, estimate: Clustered, design: Design) -> Measurement:
    if not design.unlimited:
        return m
    what, flags = " and ".join(design.unlimited), " and ".join(_LIMITS[each] for each in design.unlimited)
    n = fewest_effective(estimate)
    few = (
        f"The rows count as {n:,.4g} of one size, and under {FEWEST_UNLIMITED:,.0f} a larger kind that was not seen "
        f"may hold a tenth of the weight: no PASS unless {flags} states the largest that there can be."
    )
    said = f"This holds given the {what} at hand: {flags} makes it hold for all that there can be."
    return replace(
        m, tried=" ".join(filter(None, (m.tried, said))), weak=m.weak or (few if n < FEWEST_UNLIMITED else "")
    )


_LIMITS = {"cluster sizes": "--cluster-at-most N", "weights": "--weight-at-most W"}
_CANNOT: dict[Part, str] = {
    "cluster": "{what} cannot be clustered: the interval would take the rows of one --cluster as independent.",
    "weight": "{what} cannot be weighed: every row would count the same, whatever --weight says.",
}
_OF_ROWS = (Need.DATA, Need.LABELS, Need.TEXT, Need.SENSITIVE, Need.TRAIN, Need.GENERATED, Need.LOG)


def declared_metrics(probe: type[Probe] | Probe) -> tuple[Definition, ...]:
    """The definitions of its metrics that a probe declares; what is no definition is left out."""
    return tuple(each for each in getattr(probe, "metrics", ()) if isinstance(each, Definition))


UntrustedOptions = Mapping[str, Literal["measures", "reads"]]


def allow_untrusted(*measures: str, reads: Sequence[str] = ()) -> UntrustedOptions:
    """The probe options that an automatically found audit.toml may set; only --config sets the others.

    ``measures``: options that say what is measured and how hard it is tried. ``reads``: options that name files, which
    must then lie inside that folder. Never among them: an option that writes, takes more memory, prints what single
    rows hold, runs code, leaves out what would be looked at, or states a fact that intervals rest on.
    """
    return {name: "reads" if name in reads else "measures" for name in (*measures, *reads)}


def untrusted_options(probe: type[Probe]) -> UntrustedOptions:
    """The ``untrusted_options`` that a probe and its base classes declare."""
    return {
        name: use for base in reversed(probe.__mro__) for name, use in vars(base).get("untrusted_options", {}).items()
    }


def known_exactly(probe: type[Probe] | Probe) -> Mapping[str, str]:
    """The metrics that a probe declares free of sampling error, although on its rows, with the reason.

    Such as a share of the files at hand that is about no others: ``exact = {"duplicate_share": "every file is
    compared"}``.
    """
    declared: Mapping[str, str] = getattr(probe, "exact", {})
    return declared


def with_declared(probe: Probe, measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """The measurements with the probe's ``ideal_when_same`` declarations, if they do not state it.

    Such as ``ideal_when_same = {"flip_rate": "decisions", "mean_shift": "scores"}``, or "nothing" for a headline of
    groups that no model reaches the ideal of by that: see :class:`~auditor.judging.measurement.Measurement`. A PASS of
    the others needs a model that tells rows apart.
    """
    declared: Mapping[str, Answer | Literal["nothing"]] = getattr(probe, "ideal_when_same", {})
    return tuple(
        replace(m, ideal_when_same=declared[m.metric]) if m.ideal_when_same is None and m.metric in declared else m
        for m in measurements
    )


def make_probe(kind: type[Probe], options: Mapping[str, object]) -> Probe:
    """Construct a probe with options; ConfigError names the most similar option, or the bad value."""
    made: Probe = construct(f"Probe {kind.name!r}", kind, options)
    return made


def construct(called: str, kind: type[Any], options: Mapping[str, object]) -> Any:
    """A probe or a mitigation with options, a number alone where several are taken as one of them.

    ``called``: what errors call it. Raises ConfigError, which names the most similar option, or the bad value.
    """
    parameters = inspect.signature(kind).parameters
    known, fitting = list(parameters), dict(options)
    for key, value in options.items():
        if key not in known:
            raise ConfigError(
                f"{called} has no option {key!r}{did_you_mean(key, known) or '.'} It has: {', '.join(known) or 'none'}."
            )
        wanted = _plain_types(parameters[key].annotation)
        if wanted is not None and not any(_is(value, word) for word in wanted):
            if not any(_is([value], word) for word in wanted if word != "Sequence[str]"):
                words = " or ".join(_PLAIN[word] for word in wanted if word != "None")
                raise ConfigError(f"{called}: {key} must be {words}, not {value!r}.")
            fitting[key] = [value]
    try:
        return kind(**fitting)
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{called}: {error}.") from None


_PLAIN = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "None": "null",
    "Sequence[int]": "whole numbers", "Sequence[float]": "numbers", "Sequence[str]": "texts",
    "Mapping[str, str]": "a table of texts",
}  # fmt: skip


def _plain_types(annotation: object) -> list[str] | None:
    """The names of the plain types that an option may have, or None where it may have another."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    names = [name.strip() for name in text.split("|")]
    return names if all(name in _PLAIN for name in names) else None


def _is(value: object, plain: str) -> bool:
    """Whether a value is of a plain type; true and false are no numbers."""
    if plain == "None" or isinstance(value, bool):
        return value is None or plain == "bool"
    if plain == "Mapping[str, str]":
        return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())
    if plain.startswith("Sequence"):
        return isinstance(value, list | tuple) and all(_is(each, plain[9:-1]) for each in value)
    kinds = {"int": numbers.Integral, "float": numbers.Real, "str": str, "bool": bool}
    return isinstance(value, kinds[plain])
