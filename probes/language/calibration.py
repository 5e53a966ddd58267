"""Error rates of a text labeller, from human-labelled texts, and a rate corrected for them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from auditor.core.errors import ConfigError
from auditor.core.rows import BoolArray
from auditor.judging.measurement import Measurement
from auditor.statistics.error_corrected_rates import Corrected, WorstCorrectedDifference
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rates import MOST_GROUPS, Proportion

# Texts to whether the device says that they are so, (n,).
Labeller = Callable[[Sequence[str]], BoolArray]

FLAGGED, CORRECTED, GAP = "flagged_rate", "corrected_rate", "corrected_rate_gap"
_MOST_BYTES = 1 << 26
_SAID = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def untried(flag: str = "--calibration FILE", *, sample_note: str = "") -> str:
    """The reason why an untested device judges nothing, and the smaller sample ``sample_note`` for it."""
    said = f"What labels these texts errs, and how often is not known: add {flag}, texts that a person labelled."
    return f"{said} Without it {sample_note}." if sample_note else said


def instead(metric: str) -> str:
    """The reason why a rate is reported only as counted."""
    return f"Display only: it is counted by a device that errs. Set a bound on {metric}, which is corrected for that."


@dataclass(frozen=True)
class Counted:
    """Detected items among true ones, and rejected items among false ones."""

    found: int
    positives: int
    spared: int
    negatives: int

    def corrected(self, successes: int, n: int) -> Corrected:
        """The true rate in ``n`` texts, of which the device labelled ``successes``."""
        return Corrected(
            successes=successes,
            n=n,
            found=self.found,
            positives=self.positives,
            spared=(self.spared,),
            negatives=(self.negatives,),
        )

    @property
    def words(self) -> str:
        return (
            f"sensitivity {_rate(self.found, self.positives)}, specificity {_rate(self.spared, self.negatives)} of "
            f"{self.positives:,} and {self.negatives:,} items"
        )


@dataclass(frozen=True)
class Errors:
    """Observed errors of a device, over all items and per group; ``source``: the items, in words.

    ``doubt``: why a PASS by the device means little whatever they are, in a sentence, or "".
    """

    every: Counted
    by_group: Mapping[str, Counted]
    source: str
    doubt: str = ""

    @property
    def agreement_warning(self) -> str:
        """The reason why a PASS by the device means little, as without observed errors, in a sentence, or ""."""
        if self.doubt:
            return self.doubt
        if self.every.found < self.every.positives or self.every.spared < self.every.negatives:
            return ""
        return (
            f"The device agrees with each of {self.every.positives + self.every.negatives:,} labels, as it would had "
            "it given them itself, or were the texts too plain to err on: label harder texts, by hand."
        )

    @property
    def useless(self) -> str:
        """The reason why the device's labels are uninformative, or ""."""
        return self.every.corrected(0, 1).undecided()

    def lacking(self, groups: Sequence[str]) -> str:
        """The reason why these groups cannot be compared, or ""."""
        if not self.by_group:
            return (
                "A device may err more on texts about one group than about another, which would look like a gap, and "
                "the calibration has no column group: errors of unknown size allow no interval that says anything."
            )
        none = [g for g in groups if g not in self.by_group]
        few = [g for g in groups if g not in none and not min(self.by_group[g].positives, self.by_group[g].negatives)]
        if not none and not few:
            return ""
        missing = ", ".join(map(repr, (none or few)[:MOST_GROUPS]))
        what = "no items about" if none else "no items of both labels about"
        return f"The calibration has {what} {missing}, and a device may err on them as on no other group: add some."


@dataclass(frozen=True)
class Calibration:
    """Items with human labels ``truth`` (n,): ``texts`` for the device, or its labels, ``predicted`` (n,).

    ``groups``: whom each is about, or None.
    """

    source: str
    truth: BoolArray
    texts: tuple[str, ...] = ()
    predicted: BoolArray | None = None
    groups: tuple[str, ...] | None = None

    def measure_errors(self, device: Labeller) -> Errors:
        """The device's errors on the items, labelled now unless the file contains its labels."""
        said = device(self.texts) if self.predicted is None else self.predicted
        how = f"{len(self.truth):,} items of {self.source}"
        if self.predicted is not None:
            how += ", its labels as that file has them, which nothing here checked"
        return count_errors(said, self.truth, self.groups, how)


def count_errors(predicted: BoolArray, truth: BoolArray, groups: Sequence[str] | None, source: str) -> Errors:
    """The errors of labels on items, (n,) each, of which a person's labels are ``truth``, overall and in each group."""

    def count(subset: BoolArray) -> Counted:
        positive, negative = subset & truth, subset & ~truth
        found, spared = int((predicted & positive).sum()), int((~predicted & negative).sum())
        return Counted(found, int(positive.sum()), spared, int(negative.sum()))

    names = sorted(set(groups)) if groups else ()
    return Errors(count(np.ones(len(truth), bool)), {name: count(np.asarray(groups) == name) for name in names}, source)


def read_labels(path: str | Path) -> tuple[dict[str, bool], str]:
    """A person's labels by id, from a CSV file with the columns ``id`` and ``label``, and the file with its digest.

    Raises ConfigError where the file is another.
    """
    where = Path(path)
    body, columns, digest = _read(where)
    if not {"id", "label"} <= columns.keys():
        raise ConfigError(f"The calibration {where.name!r} needs the columns id and label, a person's label of each.")
    keys = [row[columns["id"]].strip() for _, row in body]
    _each_once(where.name, keys)
    truth = _labels(where.name, body, columns["label"], "label")
    return dict(zip(keys, truth.tolist(), strict=True)), f"{where.name}, sha256 {digest[:16]}"


def read_calibration(path: str | Path) -> Calibration:
    """The items of a CSV file with the columns ``label``, ``text`` (or ``id`` and ``predicted``) and maybe ``group``.

    ``label`` and ``predicted`` are 1 or 0, true or false, yes or no. Raises ConfigError where the file is another.
    """
    where = Path(path)
    body, columns, digest = _read(where)
    to_be_labelled = _without_labels(where.name, columns)
    name = "text" if to_be_labelled else "id"
    if name not in columns:
        raise ConfigError(f"The calibration {where.name!r} needs the column id beside predicted.")
    keys = [row[columns[name]].strip() for _, row in body]
    _each_once(where.name, keys)
    truth = _labels(where.name, body, columns["label"], "label")
    if not truth.any() or truth.all():
        raise ConfigError(f"The calibration {where.name!r} needs items labelled 1 and items labelled 0.")
    groups = tuple(row[columns["group"]].strip() for _, row in body) if "group" in columns else None
    return Calibration(
        f"{where.name}, sha256 {digest[:16]}",
        truth,
        tuple(keys) if to_be_labelled else (),
        None if to_be_labelled else _labels(where.name, body, columns["predicted"], "predicted"),
        groups,
    )


def _read(where: Path) -> tuple[list[tuple[int, list[str]]], dict[str, int], str]:
    """The numbered rows of a CSV file, the places of its columns, and its SHA-256."""
    try:
        raw = where.read_bytes()
        if len(raw) > _MOST_BYTES:
            raise ConfigError(f"The calibration {where.name!r} is too large: at most {_MOST_BYTES:,} bytes are read.")
        rows = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"The calibration {where.name!r} cannot be read as CSV: {error}.") from None
    header = [name.strip() for name in rows[0]] if rows else []
    known = ("text", "id", "label", "predicted", "group")
    columns: dict[str, int] = {name: header.index(name) for name in known if name in header}
    body = [(i, row) for i, row in enumerate(rows[1:], 2) if row]
    for i, row in body:
        if len(row) != len(header):
            raise ConfigError(f"The calibration {where.name!r}, row {i}, has {len(row)} cells of {len(header)}.")
    return body, columns, hashlib.sha256(raw).hexdigest()


def _without_labels(file: str, columns: Container[str]) -> bool:
    """Whether a file has texts for the device to label, rather than the labels that it gave."""
    to_be_labelled = "text" in columns and "predicted" not in columns
    if "label" not in columns or not (to_be_labelled or ("predicted" in columns and "text" not in columns)):
        raise ConfigError(
            f"The calibration {file!r} needs the columns text and label, or id, label and predicted: a text is "
            "labelled by the device itself, so that its label is in no file."
        )
    return to_be_labelled


def _each_once(file: str, keys: Sequence[str]) -> None:
    """Raises ConfigError for an item that stands twice: copies are no further evidence of a device."""
    seen: set[str] = set()
    for key in keys:
        if not key or key in seen:
            what = f"the item {key[:40]!r} twice" if key else "an item without a text or id"
            raise ConfigError(f"The calibration {file!r} has {what}: each item counts once, so leave it out.")
        seen.add(key)


def _labels(file: str, body: Sequence[tuple[int, Sequence[str]]], column: int, name: str) -> BoolArray:
    for i, row in body:
        if row[column].strip().casefold() not in _SAID:
            raise ConfigError(f"The calibration {file!r}, row {i}: {name} must be 1 or 0, not {row[column][:40]!r}.")
    return np.asarray([_SAID[row[column].strip().casefold()] for _, row in body], np.bool_)


def whole_rate(flags: BoolArray, errors: Errors | None, *, method: str, note: str, mute: str) -> list[Measurement]:
    """The rate of texts that the device labels, as counted and, with known errors, corrected.

    ``note``: when the device says so, in words; ``mute``: why the texts are not judged, or "".
    """
    successes, n = int(flags.sum()), len(flags)
    raw = _make_measurement(FLAGGED, Proportion(successes=successes, n=n), n, method, note)
    if errors is None:
        return [_unjudged(raw, mute or untried())]
    detail = f"counted {_rate(successes, n)} of {n:,}; {note}; {errors.every.words}: {errors.source}"
    estimate = errors.every.corrected(successes, n)
    corrected = _make_measurement(CORRECTED, estimate, n, method, detail, mute, errors.agreement_warning)
    return [_unjudged(raw, mute or instead(CORRECTED)), corrected]


def group_rates(
    flags: Mapping[str, BoolArray], errors: Errors | None, *, method: str, note: str, mute: str
) -> tuple[list[Measurement], dict[str, list[Measurement]]]:
    """(the largest corrected gap, if any; each group's rates) of texts about ``flags``' groups.

    A group is corrected by its own errors where the calibration has groups, else by those over all of its items, and
    then the gap is shown and not judged.
    """
    of_group = {} if errors is None or errors.lacking(list(flags)) else errors.by_group
    rates = {}
    for name, own in flags.items():
        alone = errors and Errors(of_group.get(name, errors.every), {}, errors.source, errors.doubt)
        rates[name] = whole_rate(own, alone, method=method, note=note, mute=mute)
    if errors is None or not 2 <= len(flags) <= MOST_GROUPS:
        return [], rates
    parts = {name: of_group.get(name, errors.every).corrected(int(own.sum()), len(own)) for name, own in flags.items()}
    counted = {name: part.successes / part.n for name, part in parts.items() if part.n}
    detail = f"{_extremes('counted', counted)}; "
    detail += _extremes("corrected", {name: part.value for name, part in parts.items()})
    by = "the errors on all texts"
    if of_group:
        sensitivity = _extremes("sensitivity", {g: of_group[g].found / of_group[g].positives for g in flags})
        specificity = _extremes("specificity", {g: of_group[g].spared / of_group[g].negatives for g in flags})
        by = f"the errors on texts about each group, {sensitivity}, {specificity}"
    gap = _make_measurement(
        GAP,
        WorstCorrectedDifference(parts=tuple(parts.values())),
        sum(map(len, flags.values())),
        method,
        f"{detail}; {note}; by {by}: {errors.source}",
        mute or errors.lacking(list(flags)),
        errors.agreement_warning,
    )
    return [gap], rates


def _make_measurement(
    metric: str, estimate: AnyEstimate, n: int, method: str, detail: str, too_few: str = "", weak: str = ""
) -> Measurement:
    ideal = 0.0 if metric == GAP else None
    return Measurement(
        metric=metric,
        method=method,
        estimate=estimate,
        n_samples=n,
        ideal=ideal,
        detail=detail,
        too_few=too_few,
        weak=weak,
    )


def _unjudged(raw: Measurement, reason: str) -> Measurement:
    return replace(raw, too_few=reason)


def _extremes(subject: str, rates: Mapping[str, float]) -> str:
    if not rates or any(rate != rate for rate in rates.values()):
        return f"{subject} undefined"
    high, low = max(rates, key=lambda g: rates[g]), min(rates, key=lambda g: rates[g])
    return f"{subject} highest {high} {rates[high]:.3f}, lowest {low} {rates[low]:.3f}"


def _rate(k: int, n: int) -> str:
    return f"{k / n:.3f}" if n else "undefined"
