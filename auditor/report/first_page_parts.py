"""Parts of the first page: numbers and limits on one axis, notable findings without a limit, next commands."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

from auditor.core.files import Number
from auditor.judging.criterion import NOT_STATED, CriterionRecord
from auditor.judging.figure_types import EARNED, RESERVED
from auditor.judging.measurement import Form, Outcome
from auditor.judging.planted import together
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.models.format_names import ENDINGS, EVALUATION_LOG, NO_MODEL
from auditor.report.record import number_text
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import Labels
from auditor.report.record.finding_text import earlier_questions, form_of, question_of, questions_of
from auditor.report.record.provenance_of_number import runs_code, to_copy
from auditor.report.record.translations import Catalogue
from auditor.statistics.attack_estimates import StrongestAttack
from auditor.statistics.rates import Proportion

LONGEST_NAME, LONGEST_REASON, MOST_NAMED = 60, 90, 4
_LONGEST_SENTENCE = 300


@dataclass(frozen=True)
class Axis:
    """A number on an axis: all positions as shares of the width, ``allowed`` as an interval."""

    low: float
    high: float
    value: float
    allowed: tuple[float, float]
    bounds: tuple[float, ...]
    alt: str


def axis_of(f: Finding, width: float | None, alt: str) -> Axis | None:
    """The axis of a finding: 0 to ``width`` for shares, which have a common scale; else its own range.

    None where nothing is required, or nothing was measured. ``alt``: what it shows, in words.
    """
    limits = _limits(f)
    if limits is None or f.interval is None or f.value is None:
        return None
    ends = [x for x in (*f.interval, f.value, *limits, f.ideal) if x is not None and math.isfinite(x)]
    first, last = (min(0.0, *ends), max(width, *ends)) if width else (min(ends), max(ends))
    if not width:
        room = 0.08 * (last - first) or 1.0
        first, last = first - room, last + room
    span = (last - first) or 1.0

    def axis_place(x: float | None, missing: float) -> float:
        return missing if x is None or not math.isfinite(x) else min(max((x - first) / span, 0.0), 1.0)

    return Axis(
        low=axis_place(f.interval[0], 0.0),
        high=axis_place(f.interval[1], 1.0),
        value=axis_place(f.value, 0.0),
        allowed=(axis_place(limits[0], 0.0), axis_place(limits[1], 1.0)),
        bounds=tuple(axis_place(x, 0.0) for x in limits if x is not None),
        alt=alt,
    )


def _limits(f: Finding) -> tuple[float | None, float | None] | None:
    """The least and the largest that is allowed; None where nothing is required."""
    if f.criterion is None:
        return None
    bound = f.criterion.bound
    if isinstance(bound, tuple | list):
        return float(bound[0]), float(bound[1])
    return (None, float(bound)) if f.criterion.direction == "at_most" else (float(bound), None)


def reach(f: Finding) -> float:
    """The right end of a finding on its axis: its value, its interval and its limit."""
    ends = (*(f.interval or ()), f.value, *(_limits(f) or ()))
    return max([x for x in ends if x is not None and math.isfinite(x)], default=0.0)


def rows_of_rate(f: Finding) -> int:
    """What a rate is a share of: of an error rate those of its group with one label, not the whole group."""
    return f.estimate.n if isinstance(f.estimate, Proportion) else f.n_samples or 0


def excess(f: Finding) -> float:
    """Excess of a value over its limit, in units of the distance from limit to ideal; below 0 within it."""
    limits = _limits(f)
    if limits is None or f.value is None:
        return math.inf if f.outcome is Outcome.NOT_RUN else -math.inf
    beyond = [f.value - limits[1]] if limits[1] is not None else []
    beyond += [limits[0] - f.value] if limits[0] is not None else []
    room = max((abs(x - (f.ideal or 0.0)) for x in limits if x is not None), default=0.0)
    return max(beyond) / (room or 1.0)


def withstood(judged: Sequence[Finding], say: Catalogue, name: Callable[[Finding], str]) -> str:
    """Of the privacy checks that pass: against which attacks, that these say nothing of others, and what is excluded.

    ``name``: of a finding's check; one of which anything is open is none that passes.
    """
    open_ = {name(f) for f in judged if f.outcome is not Outcome.PASS}
    passing = [f for f in judged if f.tried and f.pillar == "privacy" and name(f) not in open_]
    notes: dict[str, list[str]] = {}
    for f in passing:
        attacks = f.tried.partition(". ")[0].removeprefix("Tried: ").rstrip(".").replace("_", " ")
        notes.setdefault(attacks, []).append(name(f))
    told = [say.say("page.tried", names=" / ".join(dict.fromkeys(names)), attacks=a) for a, names in notes.items()]
    # Whoever scores above all but a share of the others is counted at that share, so no more than its upper end is.
    ends = [f.interval[1] for f in passing if FALSE_ALARMS in f.at and not f.sensitive and f.interval]
    if known := [share for share in ends if share is not None]:
        told.append(say.say("page.excluded", share=say.percent(min(known))))
    return " ".join(told)


def seen_plants(report: AuditReport, say: Catalogue) -> str:
    """Whether the probes of judged numbers saw what was planted in these rows, and which had no control; "" where
    records are of before there were any."""
    if report.no_controls:
        return say.say("page.planted_off")
    controlled = [f for f in report.findings if f.planted is not None]
    blind = dict.fromkeys(f.probe.replace("_", " ") for f in controlled if f.blind)
    tested = dict.fromkeys(f.probe for f in controlled if f.planted is not None and f.planted.planted)
    untested = dict.fromkeys(f.probe.replace("_", " ") for f in controlled if f.probe not in tested)
    of = together([f.planted for f in controlled if f.planted is not None])
    counts = {name: say.count(getattr(of, name)) for name in ("seen", "planted", "alarmed", "clean")}
    told = []
    if blind:
        told.append(say.say("page.planted_blind", names=", ".join(blind)))
    elif tested:
        told.append(say.count_text("page.planted_seen", len(tested), **counts))
    if untested:
        told.append(say.say("page.planted_none", names=", ".join(untested)))
    return " ".join(told)


def needed_in_all(report: AuditReport, judged: Iterable[Finding]) -> int:
    """The number of rows, or of samples without rows, that settles every open question; 0 if more settle none."""
    rows = report.data.n_rows
    needed = [
        f.n_required
        for f in judged
        if f.outcome is Outcome.INCONCLUSIVE and f.n_required is not None and f.n_required > (rows or f.n_samples or 0)
    ]
    return max(needed, default=0)


def verdict_note(report: AuditReport, f: Finding, say: Catalogue) -> str:
    """What stands beside a verdict: the reservations of a PASS, or why it is open and what would settle it."""
    if f.outcome is Outcome.PASS and f.detail.startswith(f"{EARNED} {RESERVED}"):
        why = ": ".join(f.detail.removeprefix(f"{EARNED} {RESERVED}: ").partition(" (")[0].split(": ")[:2])
        return say.say("verdict.reserved", why=number_text.shortened(why, LONGEST_REASON))
    if f.outcome is not Outcome.INCONCLUSIVE:
        return ""
    if f.alone is Outcome.FAIL or f.is_weakly_tested:
        return say.say("verdict.weak" if f.is_weakly_tested else "verdict.alone")
    if f.n_required is None:
        return ""
    if f.n_samples is not None and f.n_required <= f.n_samples:
        return say.say("verdict.near")
    key = "verdict.rows" if report.data.n_rows else "verdict.samples"
    return say.say(key, n=say.count(f.n_required))


def what_is_sure(f: Finding, say: Catalogue) -> str:
    """Whether a number is shown to lie beyond its limit, or why that is open, where the interval is not why."""
    if f.outcome is Outcome.FAIL or f.is_weakly_tested:
        return say.say("effect.beyond" if f.outcome is Outcome.FAIL else "effect.weak")
    first = re.split(r"(?<=\.) ", f.reason, maxsplit=1)[0]
    by_interval = f.outcome is not Outcome.INCONCLUSIVE or first.startswith("The interval [") or not first
    return say.say("effect.open") if by_interval else number_text.shortened(first, _LONGEST_SENTENCE)


# Where a number was taken: at which share of those who are called members wrongly, and at which expected share of those
# named who are named wrongly.
FALSE_ALARMS = "false_positive_rate"
WRONGLY_NAMED = "false_discovery_rate"


def unbounded_findings(report: AuditReport, *, on_page: Collection[str]) -> list[Finding]:
    """Numbers without a limit that significantly differ from their ideal: exposed persons first.

    Rows named at a stated error rate; headline numbers; and of each probe without any that is not ``on_page`` already,
    the number that lies furthest from its ideal.
    """
    # What is judged of several attacks together is bounded, and so are they.
    bounded = {(f.probe, f.metric) for f in report.findings if f.criterion is not None}
    # Of whole sentences who is named decides most: the score of what is said given that speaks for both.
    bounded |= {
        (f.probe, f.metric.removeprefix("conditional_"))
        for f in report.findings
        if f.metric is not None and f.metric.startswith("conditional_")
    }
    # Of two counts of the same thing the one that is judged is told.
    counted = {(f.probe, question_of(report, f.probe, f.metric)) for f in report.findings if f.criterion is not None}
    wholes = {(f.probe, f.metric) for f in report.findings if isinstance(f.estimate, StrongestAttack)}
    candidates = [
        f
        for f in report.findings
        if _has_ideal(f)
        and not (f.method and (f.probe, f.metric) in wholes)
        and not (
            form_of(report, f.probe, f.metric) == "count"
            and (f.probe, question_of(report, f.probe, f.metric)) in counted
        )
    ]
    # One member above every other row may be there by chance: such a share is shown where rows can be named, too.
    counting = {f.probe for f in candidates if _counts_rows(f)}
    naming = {(f.probe, method) for f in candidates if names_rows(f) for method in (f.method, None)}
    looked_at = Counter(f.probe for f in candidates)
    largest: dict[str, Finding] = {}
    # The size of a fault before a skill that no model has whole.
    for f in sorted(candidates, key=lambda f: (f.ideal != 0.0, -_distance(f))):
        if f.method == "scoring_rate" or not _leaves_out(f.interval or (None, None), f.ideal or 0.0):
            continue
        if names_rows(f):
            largest.setdefault(f"{f.probe} rows", f)
        elif (f.probe, f.metric) in bounded and not f.sensitive:
            continue
        elif f.ideal == 0.0 and f.probe in counting and (f.probe, f.method) not in naming:
            continue
        elif _is_headline(report, f):
            largest.setdefault(f"{f.probe}/{f.metric}", f)
        elif (
            f.probe not in on_page
            and not any(q.headline for q in questions_of(report, f.probe))
            and _stands_out(f, looked_at[f.probe])
        ):
            largest.setdefault(f.probe, f)
    return sorted(largest.values(), key=lambda f: _people_first(report, f))


def names_rows(f: Finding) -> bool:
    """Whether it counts training rows identifiable at a low false discovery rate; false for shares of them."""
    counted = _counts_rows(f) and f.value is not None and f.value >= 1.0
    return counted and f.outcome is Outcome.NOT_JUDGED and not f.doubtful


def _counts_rows(f: Finding) -> bool:
    return f.pillar == "privacy" and WRONGLY_NAMED in f.at


def _has_ideal(f: Finding) -> bool:
    """Whether it is a number of all rows that nobody judged, and has a value that it should have."""
    return f.outcome is Outcome.NOT_JUDGED and not f.group and f.ideal is not None and f.metric is not None


def _is_headline(report: AuditReport, f: Finding) -> bool:
    question = question_of(report, f.probe, f.metric)
    # Of many numbers of a kind the one that matters: the score, what is decided by it, the plainest test, whole copies.
    matters = not f.at or f.at.get("from") == "score" or set(f.at) == {"test"} or f.at.get("copies") == "exact"
    return matters and question is not None and f.metric in question.headline


def _stands_out(f: Finding, n: int) -> bool:
    """Whether a number leaves its ideal that was picked among ``n``, and nothing is said against reading it."""
    if f.reason or f.doubtful or f.estimate is None or f.confidence is None or f.ideal is None:
        return False
    return _leaves_out(f.estimate.bounds((1.0 - f.confidence) / (2.0 * n)), f.ideal)


def _leaves_out(ends: tuple[Number, Number], ideal: float) -> bool:
    low, high = ends
    return (low is not None and low > ideal) or (high is not None and high < ideal)


def _distance(f: Finding) -> float:
    """How far the nearest end of an interval lies from the ideal."""
    low, high = f.interval or (None, None)
    ideal = f.ideal or 0.0
    return max((low - ideal) if low is not None else 0.0, (ideal - high) if high is not None else 0.0)


def _people_first(report: AuditReport, f: Finding) -> tuple[bool, bool, int, int]:
    """Exposed persons first, then by question in the order of the record; what answers none comes last."""
    probes, own = [*(report.questions or earlier_questions())], questions_of(report, f.probe)
    question = question_of(report, f.probe, f.metric)
    place = probes.index(f.probe) if question is not None and f.probe in probes else len(probes)
    return f.pillar != "privacy", not names_rows(f), place, own.index(question) if question is not None else 0


# A condition of a subgroup on a number, as the search writes it.
_BETWEEN = re.compile(r"(?P<feature>.+) in \[(?P<low>[^,]+), (?P<high>[^)\]]+)(?P<end>[)\]])")


def group_name(labels: Labels, say: Catalogue, feature: str, level: str) -> str:
    """A group in words: its column and its value, after the display name of the value if it has one."""
    # A name is whoever's who wrote the configuration: what it stands for is beside it.
    known = labels.words.get(f"{feature}.{level}")
    column, name, said = (
        number_text.shortened(part, LONGEST_NAME)
        for part in (labels.column(feature) if known is None else feature, level, known or "")
    )
    group = say.say("effect.group", feature=column, level=name)
    return f"{said} ({group})" if said else group


def decisions_of(report: AuditReport, labels: Labels, say: Catalogue) -> list[str]:
    """What the model decides between, as its rows name it; nothing where it is not one of a few classes."""
    target, classes = report.data.target, report.model.classes
    if target is None or not 1 < len(classes) <= MOST_NAMED:
        return []
    answers = [number_text.shortened(labels.value(target, name), LONGEST_NAME) for name in classes]
    either = say.say("page.or").join(say.say("effect.quoted", word=answer) for answer in answers)
    column = number_text.shortened(labels.column(target), LONGEST_NAME)
    return [say.say("page.decides", target=column, answers=either)]


def favourable_of(report: AuditReport, labels: Labels, say: Catalogue) -> str:
    """The favourable answer, quoted, by its display name: what that stands for is below, with the scope."""
    data = report.data
    if data.positive is None:
        return say.say("form.undefined")
    known = labels.words.get(f"{data.target}.{data.positive}")
    return say.say("effect.quoted", word=number_text.shortened(known or data.positive, LONGEST_NAME))


def worst_subgroup(
    report: AuditReport,
    f: Finding,
    say: Catalogue,
    *,
    column: Callable[[str], str],
    level: Callable[[str, str], str],
) -> str:
    """Of a number of subgroups the one whose gap is shown to be largest, in words; "" for any other number.

    One of a sensitive feature comes first: a condition on another feature is no group that anybody belongs to, and says
    where among the rows. ``column``, ``level``: the display names of columns and groups.
    """
    gaps = [g for g in report.findings if g.probe == f.probe and "slice" in g.at and g.value is not None]
    if "slice" in f.at or not gaps or form_of(report, f.probe, f.metric) != "count":
        return ""

    def rank(gap: Finding) -> tuple[bool, float]:
        parts = str(gap.at["slice"]).split(" & ")
        named = any(part.partition(" = ")[0] in report.data.sensitive for part in parts)
        return named, (gap.interval or (None,))[0] or 0.0

    def words(part: str) -> str:
        between = _BETWEEN.fullmatch(part)
        if between is None:
            feature, equals, value = part.partition(" = ")
            return level(feature, value) if equals else part
        key = "below" if between["end"] == ")" else "upto"
        low, high = (_number_text(between[name], say) for name in ("low", "high"))
        return say.say(f"effect.{key}", feature=column(between["feature"]), low=low, high=high)

    worst = max(gaps, key=rank)
    parts = str(worst.at["slice"]).split(" & ")
    parts.sort(key=lambda part: part.partition(" = ")[0] not in report.data.sensitive)
    return f"{say.say('ended.and').join(map(words, parts))} ({say.value(worst.value, 'points')})"


def _number_text(words: str, say: Catalogue) -> str:
    try:
        return say.spelled(f"{float(words):,.6g}")
    except ValueError:
        return words


Flags = list[tuple[str, str]]
# What the record of an audit does not hold but in its command, and the next command needs again.
_OF_MODEL = ("--text", "--image", "--features", "--classes", "--outputs", "--threshold")
_OF_MODEL_AND_ROWS = (
    *_OF_MODEL, "--sensitive-file", "--join-on",
    "--bins", "--cluster", "--weight", "--probes", "--set", "--policy", "--config",
)  # fmt: skip


def repair_of(report: AuditReport) -> tuple[str, str]:
    """The command that retrains the model into a file of the same kind, after the id of the sentence that it follows;
    the list of mitigations for other models, and for audits without training rows."""
    data, model, told = report.data, report.model, _scan_flags(report)
    endings = ENDINGS.get(model.format)
    if told is None or endings is None or not (model.path and model.classes and data.path):
        return "repair", "auditor mitigate list"
    if not data.train_path:
        return "repair_untold", "auditor mitigate list"
    read = PurePath(model.path)
    ending = read.suffix if read.suffix in endings else endings[0]
    return "repair", _command(
        ["auditor", "mitigate", "reweighing", model.path],
        ("--train", data.train_path),
        ("--data", data.path),
        ("--target", data.target),
        ("--positive", data.positive),
        *(("--sensitive", name) for name in data.sensitive),
        *told,
        ("--out", _beside(report, f"fairer{ending}")),
    )


def private_training_of(report: AuditReport) -> str:
    """The command for a private training on the same table rows; "" for other rows, and without training rows."""
    data, told = report.data, _scan_flags(report)
    if told is None or not (data.target and data.train_path) or report.model.format not in ENDINGS:
        return ""
    if any(flag in ("--text", "--image") for flag, _ in told):
        return ""
    return _command(
        ["auditor", "train", data.train_path],
        ("--target", data.target),
        ("--positive", data.positive),
        *((flag, value) for flag, value in told if flag in ("--features", "--weight")),
        ("--dp-epsilon", "3"),
        ("--out", _beside(report, "private.pt")),
    )


def _beside(report: AuditReport, name: str) -> str:
    """The name of a new model's file, another one where the model that was read has it."""
    path = PurePath(name)
    return f"{path.stem}-2{path.suffix}" if PurePath(report.model.path or "").name == name else name


def who_set(criterion: CriterionRecord, say: Catalogue) -> str:
    """By whom a limit was set, or in which file, where nobody is named."""
    if criterion.set_by == NOT_STATED:
        return say.say("page.nobody", source=number_text.shortened(criterion.source, LONGEST_NAME))
    return f"“{number_text.shortened(criterion.set_by, LONGEST_NAME)}”"


def registration_of(report: AuditReport) -> str:
    """The command that registers the plan, or, if no configuration was used, the one that creates a configuration; ""
    for rows without such a command: media, a database, rows that were passed in Python, no model, or a log."""
    if report.model.format == NO_MODEL or report.model.format.startswith(EVALUATION_LOG):
        return ""
    files = report.configuration.files if report.configuration is not None else ()
    own = next((file.path for file in files if file.role == "configuration"), None)
    if own is not None:
        return _command(["auditor", "evidence", "register", own])
    data, model = report.data, report.model
    if not PurePath(data.path or "").suffix or "://" in (data.path or ""):
        return ""
    # ``start`` does not take what some models need to be read.
    flags = [flag for flag, _ in _scan_flags(report) or [] if flag in _OF_MODEL]
    if model.path is None or model.format not in ENDINGS or flags:
        return _command(["auditor", "start", data.path or ""])
    # A plan that leaves the model open fixes little.
    told = [("--target", data.target), ("--positive", data.positive), *(("--sensitive", s) for s in data.sensitive)]
    return _command(["auditor", "start", model.path, data.path or ""], *told)


def _scan_flags(report: AuditReport) -> Flags | None:
    """What the audit was told of its model and rows; None where that runs code, which nobody is to copy unseen."""
    words = shlex.split(to_copy(report.environment.command))
    if runs_code(words):
        return None
    found: Flags = []
    for word, following in pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if flag in _OF_MODEL_AND_ROWS:
            found.append((flag, value if equals else following))
        elif flag == "--copies-are-real":
            found.append((flag, ""))
    return found


def _command(words: Sequence[str], *flags: tuple[str, str | None]) -> str:
    """A command as a shell takes it, without flags whose value is None; a flag whose value is "" takes none."""
    more = [word for flag, value in flags if value is not None for word in (flag, value) if word]
    return shlex.join([*words, *more])


def interval_text(f: Finding, form: Form, say: Catalogue) -> str:
    """The interval of a number, "exact" of one that is counted, and "" without a number."""
    if f.estimate is not None and f.estimate.kind == "exact":
        return say.say("form.exact")
    return say.interval(f.interval, form) if f.value is not None else ""


def next_of_unbounded(report: AuditReport, f: Finding, say: Catalogue) -> tuple[str, str]:
    """The phrase of what to do about a number without a limit, and the line of a policy file that would set one, which
    is left to whoever answers for it; what no limit makes right, as a log that contradicts itself, is mended."""
    question = question_of(report, f.probe, f.metric)
    mended = "" if question is None else f"mend_{question.id}"
    if form_of(report, f.probe, f.metric) == "count" and say.has(f"next.{mended}"):
        return mended, ""
    direction = "at_least" if f.ideal is not None and f.value is not None and f.value < f.ideal else "at_most"
    metric, way = json.dumps(f.metric), json.dumps(direction)
    return "bound", f"criteria = [{{ metric = {metric}, direction = {way}, bound = ... }}]"


def limits_of(report: AuditReport) -> dict[str, str]:
    """The profiles and files in force, ``kept`` as ``--policy`` takes them, and a ``file`` for a limit beside them."""
    files = report.configuration.files if report.configuration is not None else ()
    in_force = [file.path for file in files if file.role == "criteria" or "criteria" in (file.keys or ())]
    names = ("limits.toml", *(f"limits-{i}.toml" for i in range(2, len(in_force) + 3)))
    own = next(name for name in names if name not in in_force)
    return {"kept": ",".join(dict.fromkeys(in_force)) or DEFAULT_PROFILE, "file": own}
