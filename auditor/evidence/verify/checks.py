"""Results of verification: performed checks, their outcomes, the facts that remain unproven, and how JSON differs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from auditor.core.errors import UsageError, did_you_mean
from auditor.report.record.audit_report import AuditReport

State = Literal["ok", "wrong", "not checked"]
# What can prove a thing that a bundle says, and what a reader can require of one.
Needs = Literal[
    "signature", "rows", "numbers", "outcomes", "registration", "decisions", "packs", "configuration", "request",
    "timestamp", "history", "report",
]  # fmt: skip
NEEDS: tuple[Needs, ...] = get_args(Needs)
# What recomputing a record meets where no audit wrote it: numbers beyond all bounds, places that are not there.
NOT_COMPUTED = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, StopIteration, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: ``name`` is its topic, ``detail`` its result."""

    name: str
    state: State
    detail: str


@dataclass(frozen=True, kw_only=True)
class Unproven:
    """A statement of a bundle that nothing in it proves.

    ``where``: a place, such as ``record.json: created``, or a pattern of them, such as ``record.json: about.*``.
    ``needs``: what would prove it; None for a plain statement, which no computation settles, such as a name.
    """

    where: str
    why: str
    needs: Needs | None = None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """The verification of a bundle: its checks in order, and the record if it could be read.

    ``from_rows``, ``from_tables``: ids of findings whose statistics were counted anew from stored rows or tables; all
    others were recomputed from the statistics that the bundle holds of them. ``there``: what the bundle holds of what
    proves; ``unproven``: what nothing in it proves.
    """

    checks: tuple[Check, ...]
    report: AuditReport | None
    from_rows: frozenset[str] = frozenset()
    from_tables: frozenset[str] = frozenset()
    there: frozenset[Needs] = frozenset()
    unproven: tuple[Unproven, ...] = ()

    def and_checked(self, checks: Iterable[Check]) -> Verified:
        """The result with more checks, and the statements that they leave open."""
        more = tuple(checks)
        return replace(self, checks=(*self.checks, *more), unproven=(*self.unproven, *left_open(more)))

    def settled(self, needs: Needs) -> Verified:
        """The result with all open statements of this kind settled."""
        left = tuple(each for each in self.unproven if each.needs != needs)
        return replace(self, there=self.there | {needs}, unproven=left)

    @property
    def wrong(self) -> bool:
        """Whether anything disagrees."""
        return any(check.state == "wrong" for check in self.checks)

    @property
    def open(self) -> tuple[Unproven, ...]:
        """Unproven foundations of the record: all unproven statements except plain declarations."""
        return tuple(each for each in self.unproven if each.needs is not None)

    @property
    def plain_statements(self) -> tuple[Unproven, ...]:
        """Plain statements, supported only by the signer."""
        return tuple(each for each in self.unproven if each.needs is None)

    @property
    def proven(self) -> tuple[Needs, ...]:
        """The parts present and completely proven."""
        lacking = {each.needs for each in self.open}
        return tuple(each for each in NEEDS if each in self.there and each not in lacking)

    def lacks(self, required: Sequence[Needs]) -> tuple[Needs, ...]:
        """The required parts that are missing or not completely proven.

        Outcomes that cannot be judged again are lacking whatever is required.
        """
        always = [each.needs for each in self.open if each.needs == "outcomes"]
        return tuple(each for each in NEEDS if each in (*required, *always) and each not in self.proven)

    def exit_code(self, required: Sequence[Needs] = (), *, allow_unsigned: bool = False) -> int:
        """1 for any disagreement; else 3 if something is open or a ``required`` part is missing; else 0.

        Without ``required`` all must be proven but plain statements. ``allow_unsigned``: who signed may be unknown.
        """
        if self.wrong:
            return 1
        if required:
            return 3 if self.lacks(required) else 0
        return 3 if any(not (allow_unsigned and each.needs == "signature") for each in self.open) else 0


# What would settle a check that could not be made, by how its name begins; any other wants the numbers.
_SETTLED_BY: tuple[tuple[str, Needs | None], ...] = (
    ("signature", "signature"), ("dossier, signature", "signature"), ("dossier", "report"), ("report", "report"),
    ("timestamp", "timestamp"), ("rows", "rows"),
    ("group table", "rows"), ("rule pack", "packs"), ("looks", "history"), ("log", "request"), ("code", None),
    ("figures", None), ("outcomes", "outcomes"),
)  # fmt: skip


def left_open(checks: Iterable[Check]) -> list[Unproven]:
    """The statements left unproven by checks that could not run."""
    return [
        Unproven(
            where=check.name,
            why=check.detail,
            needs=next((needs for start, needs in _SETTLED_BY if check.name.startswith(start)), "numbers"),
        )
        for check in checks
        if check.state == "not checked"
    ]


def required_of(text: str | None) -> tuple[Needs, ...]:
    """The parts named by ``--require``, as in ``rows,signature``.

    Raises UsageError for what there is none of.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError(f"--require names nothing: write one or more of {', '.join(NEEDS)}.")
    for name in names:
        if name not in NEEDS:
            near = did_you_mean(name, NEEDS) or "."
            raise UsageError(f"--require {name!r} is nothing that a bundle can prove{near} Known: {', '.join(NEEDS)}.")
    return tuple(each for each in NEEDS if each in names)


# Numbers are computed on another machine, perhaps with another version of a library.
RELATIVE = 1e-6


def difference(recorded_value: object, new_value: object, where: str = "") -> str:
    """The first place where two values of JSON differ by more than rounding, in words; "" where none does."""
    first = _first(recorded_value, new_value)
    if first is None:
        return ""
    path, words = first
    return f"{f'{where}{path}'.strip('.') or 'it'} {words}"


def _first(recorded_value: object, new_value: object) -> tuple[str, str] | None:
    """The way to that place, which is spelled only where there is one, and what is said of it."""
    if isinstance(recorded_value, str):
        same = recorded_value == new_value
    elif isinstance(recorded_value, bool) or isinstance(new_value, bool) or recorded_value is None or new_value is None:
        same = recorded_value is new_value
    elif isinstance(recorded_value, (int, float)) and isinstance(new_value, (int, float)):
        same = recorded_value == new_value or _is_close(recorded_value, new_value)
    elif isinstance(recorded_value, Mapping) and isinstance(new_value, Mapping):
        for key in {**recorded_value, **new_value}:
            if key not in recorded_value or key not in new_value:
                said = "is missing" if key in new_value else "is there, and nothing comes to it"
                return f".{key}"[:80], said
            if (first := _first(recorded_value[key], new_value[key])) is not None:
                return f".{key}{first[0]}", first[1]
        return None
    elif isinstance(recorded_value, (list, tuple)) and isinstance(new_value, (list, tuple)):
        if len(recorded_value) != len(new_value):
            return "", f"has {len(recorded_value)} entries, recomputed {len(new_value)}"
        for i, pair in enumerate(zip(recorded_value, new_value, strict=True)):
            if (first := _first(*pair)) is not None:
                return f"[{i}]{first[0]}", first[1]
        return None
    else:
        same = recorded_value == new_value
    return None if same else ("", f"says {_value_text(recorded_value)}, recomputed {_value_text(new_value)}")


def _is_close(recorded_value: float, new_value: float) -> bool:
    try:
        return math.isclose(recorded_value, new_value, rel_tol=RELATIVE, abs_tol=1e-12)
    except OverflowError:
        return False  # an integer beyond all floating-point numbers


def _value_text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
