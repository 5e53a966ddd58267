"""Any field of any part of a bundle is changed and signed anew with the right key: it is found, or not proven."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import AuditorError
from auditor.evidence.container import pack
from auditor.evidence.evidence_bundle import statement_of
from auditor.evidence.manifest import (
    LOG,
    MANIFEST,
    RECORD,
    REDACTABLE,
    ROWS,
    SIGNATURE,
    build_manifest,
    canonical,
    events,
    in_order,
)
from auditor.evidence.signing import load_private_key, sign
from auditor.report.record.audit_report import AuditReport
from tests.evidence.verify.forged import code_of_once, is_unproven, known_intervals, lies_under  # noqa: F401
from tests.evidence.verify.whole import Again, Whole, whole

MUTATIONS = 420
Keys = tuple[Any, ...]


@dataclass(frozen=True)
class Mutation:
    """What was changed: of which part, where in it, in which of its ways, and the part as it is then."""

    part: str
    place: str
    how: str
    content: bytes


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return whole(tmp_path_factory.mktemp("adversary"), ("group_fairness", "score_fairness", "out_of_distribution"))


# ---- places and changes ----------------------------------------------------------------------------------------------


def in_words(part: str, value: Any, keys: Keys) -> str:
    """A place as verification names it: probes and their measurements by name, other items of lists by number."""
    said = ""
    for i, key in enumerate(keys):
        of = keys[i - 1] if i else ""
        if isinstance(value, list) and part == "results.json" and of == "results":
            said = str(value[key]["probe"])
        elif isinstance(value, list) and part == "results.json" and of == "measurements":
            said = said.removesuffix(".measurements") + f"[{value[key]['method']} {value[key]['metric']}]"
        else:
            said = f"{said}.{key}".strip(".")
        value = value[key]
    return f"{part}: {said}"


def other(value: Any, rng: np.random.Generator) -> Any:
    """Another value of the same kind: a string changed, a number by 1 % or by a lot, a truth turned."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + int(rng.choice([1, -1, 1000]))
    if isinstance(value, float):
        return value * float(rng.choice([1.01, 0.99, 40.0])) if value else float(rng.choice([0.01, 3.0]))
    if isinstance(value, str):
        return str(rng.choice([value + "x", value[1:] or "y", value.swapcase() if value.swapcase() != value else "z"]))
    return {"null": None, "list": [1], "dict": "x"}.get({list: "dict", dict: "list"}.get(type(value), "list"))


def changed(value: Any, keys: Keys, rng: np.random.Generator) -> tuple[str, Any]:
    """The whole value with one thing done to one place, and what."""
    whole_of_it = deepcopy(value)
    at = whole_of_it
    for key in keys[:-1]:
        at = at[key]
    key = keys[-1]
    ways = ["other", "other", "null", "drop"]
    if isinstance(at, list):
        ways += ["twice", "swap"] if len(at) > 1 else ["twice"]
    how = str(rng.choice(ways))
    if how == "other" and isinstance(at[key], list | dict):
        how = "drop"
    if how == "drop":
        del at[key]
    elif how == "twice":
        at.insert(key, deepcopy(at[key]))
    elif how == "swap":
        j = int(rng.choice([i for i in range(len(at)) if i != key]))
        at[key], at[j] = at[j], at[key]
    else:
        at[key] = other(at[key], rng) if how == "other" else None
    return how, whole_of_it


def mutations(entries: dict[str, bytes], rng: np.random.Generator, n: int) -> Iterator[Mutation]:
    """``n`` mutations, each part by turns as often as it weighs."""
    parts = [name for name in entries if name != SIGNATURE]
    share = {"record.json": 6, "results.json": 6, "request.json": 3, "tables.json": 2, ROWS: 2, LOG: 2}
    weights = np.asarray([share.get(name, 1) for name in parts], float)
    for name in rng.choice(parts, n, p=weights / weights.sum()):
        part = str(name)
        while (made := mutated(part, entries[part], rng)) is None:
            continue
        yield made


def mutated(part: str, content: bytes, rng: np.random.Generator) -> Mutation | None:
    """One mutation of a part; None where what was drawn changes nothing."""
    if part in REDACTABLE:
        lines = list(csv.reader(io.StringIO(content.decode(), newline="")))
        i, j = int(rng.integers(1, len(lines))), int(rng.integers(len(lines[0])))
        how, lines = changed(lines, (i, j) if rng.random() < 0.8 else (i,), rng)
        lines = [["" if cell is None else str(cell) for cell in line] for line in lines if line is not None]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(lines)
        made, place = text.getvalue().encode(), f"{part}: line {i}"
    elif part == LOG:
        said: Any = events(content)
        # The chain is made anew.
        keys = drawn([{k: v for k, v in event.items() if k not in ("n", "previous")} for event in said], rng)
        how, said = changed(list(said), keys, rng)
        made = b"\n".join(canonical(event) for event in said if event is not None)
        place = in_words(part, events(content), keys)
        if made == b"\n".join(map(canonical, events(content))):
            return None
    elif part.endswith(".toml"):
        lines = content.decode().splitlines()
        i = int(rng.integers(len(lines)))
        how, lines = changed(lines, (i,), rng)
        made, place = "\n".join(line or "" for line in lines).encode() + b"\n", f"{part}: line {i}"
    else:
        said = json.loads(content)
        keys = drawn(said, rng)
        how, after = changed(said, keys, rng)
        made, place = in_order(after), in_words(part, said, keys)
        if made == in_order(said):
            return None
    return None if made == content else Mutation(part, place, how, made)


def drawn(value: Any, rng: np.random.Generator) -> Keys:
    """A place, of each branch as likely as of any other: a long list is no more than a short one."""
    keys: Keys = ()
    while isinstance(value, dict | list) and len(value) and (not keys or rng.random() < 0.93):
        options = list(value) if isinstance(value, dict) else list(range(len(value)))
        keys = (*keys, options[int(rng.integers(len(options)))])
        value = value[keys[-1]]
    return keys


# ---- all else made to fit --------------------------------------------------------------------------------------------


def signed_anew(bundle: Whole, made: Mutation, path: Path) -> Path:
    """The bundle with that part, its log chained, manifest and signature made anew."""
    entries = bundle.entries | {made.part: made.content}
    if made.part != MANIFEST:
        log = Again()
        for event in events(entries[LOG] if made.part != LOG else made.content):
            log.line(dict(event))
        entries[LOG] = log.to_bytes()
        manifest = build_manifest({n: c for n, c in entries.items() if n not in (MANIFEST, SIGNATURE)}, log)
        entries[MANIFEST] = manifest.to_bytes()
        try:
            report = AuditReport.model_validate_json(entries[RECORD])
        except ValueError:  # nobody signs what is no record
            report = AuditReport.model_validate_json(bundle.entries[RECORD])
        entries[SIGNATURE] = sign(statement_of(manifest, report), load_private_key(bundle.keys / "auditor.key"))
    path.write_bytes(pack(entries))
    return path


# ---- found, or not proven --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What became of a mutation: ``found`` wrong, or its place ``unproven``, or neither."""

    mutation: Mutation
    found: bool
    unproven: bool


def looked_at(bundle: Whole, made: Mutation, path: Path) -> Seen:
    """What verification says of one mutation; refusing to read what is no bundle is finding it."""
    try:
        found = bundle.verified(signed_anew(bundle, made, path), own=True)
    except AuditorError:
        return Seen(made, True, False)
    return Seen(made, found.wrong, is_unproven(found, made.place))


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.usefixtures("known_intervals")
# Numbers beyond all bounds are found out by what they come to.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("n", [MUTATIONS // 3, MUTATIONS])
def test_whatever_is_changed_in_a_bundle_is_found_or_lies_under_what_is_not_proven(
    n: int, bundle: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = bundle.verified(own=True)
    assert not honest.wrong
    rng = np.random.default_rng(20261127)
    seen = [looked_at(bundle, made, tmp_path / "a.zip") for made in mutations(bundle.entries, rng, n)]
    # A duration, a machine's name or a path bears on no conclusion; whatever else is open counts against us.
    words = [each.where for each in honest.plain_statements if not each.where.endswith(": *")]
    bearing = [each for each in seen if not lies_under(each.mutation.place, words)]
    shares = [sum(each.found for each in some) / len(some) for some in (seen, bearing)]
    with capsys.disabled():
        told = Counter((each.mutation.part.partition("/")[0], each.found) for each in seen)
        print(
            f"\n{shares[0]:.1%} of {len(seen)} changes found, of {len(bearing)} that are no mere words {shares[1]:.1%}"
        )
        for part in sorted({name for name, _ in told}):
            print(f"  {part}: {told[part, True]} of {told[part, True] + told[part, False]}")
    escaped = [each.mutation for each in seen if not (each.found or each.unproven)]
    assert not escaped, [(each.place, each.how) for each in escaped]
    # A few changes may come by one of the parts.
    parts = len({each.mutation.part for each in seen})
    assert len(seen) >= 0.95 * n and parts >= len(bundle.entries) - (1 if n == MUTATIONS else 2)
    assert shares[0] >= 0.9 and shares[1] >= 0.95
