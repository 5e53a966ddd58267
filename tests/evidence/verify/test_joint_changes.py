"""Two or three changes at once, signed anew with the right key: what is valid says what it said before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from auditor.core.errors import AuditorError
from auditor.evidence.comparison_evidence import write_evidence
from auditor.evidence.container import pack, unpack
from auditor.evidence.derived_evidence import recorded, statement_of_derived, write_derived
from auditor.evidence.evidence_bundle import statement_of
from auditor.evidence.manifest import (
    LOG,
    MANIFEST,
    RECORD,
    RESULTS,
    SIGNATURE,
    TIMESTAMP,
    Kind,
    Manifest,
    build_manifest,
    canonical,
    code_digests,
    events,
)
from auditor.evidence.signing import load_private_key, load_public_key, sign
from auditor.evidence.timestamp import authorities_of, covered, timestamp_of
from auditor.evidence.tradeoff_evidence import TRIED
from auditor.evidence.training_evidence import LOOKS
from auditor.evidence.verify.checks import Unproven, Verified
from auditor.evidence.verify.dispatch import verify_evidence
from auditor.evidence.verify.stated_fields import STATED
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import AuditReport, Summary
from cli.commands import app
from cli.verify import stored_probe
from tests.evidence.authority import authority, serving
from tests.evidence.verify.forged import code_of_once, known_intervals, lies_under  # noqa: F401
from tests.evidence.verify.test_adversary import drawn, mutated
from tests.evidence.verify.test_derived import _each_audit_once, _made  # noqa: F401
from tests.evidence.verify.test_detected import folder as detected  # noqa: F401
from tests.evidence.verify.test_dp_audited import folder as dp_audited  # noqa: F401
from tests.evidence.verify.test_other_code import REQUIRED
from tests.evidence.verify.test_trained import trained
from tests.evidence.verify.whole import Again, whole
from tests.quantifiers import none_of
from tests.toys import logs

Parts = dict[str, bytes]
Rng = np.random.Generator
KINDS = ("comparison", "mitigation", "tradeoff", "records", "training", "detection", "dp_audit")
# Of the audit so many cases of so many changes, of each other kind one, of which some take longer.
TURNS, OF_AUDIT = 31, 40
SCANS = ("streamed", "logged", "rows_alone")
OF_OTHERS = {"dp_audit": 40, "stamped": 40, **dict.fromkeys(SCANS, 40)} | {
    kind: 110 for kind in KINDS if kind != "dp_audit"
}
EXTREME: tuple[Any, ...] = (
    1e308, -1e308, 5e-324, -0.0, 0, -1, 2**31, 2**63, 10**400, float("nan"), float("inf"), True, None, "1", [], {},
)  # fmt: skip
STRANGE = (
    "", "\0", "\ud800", "\u202e", "../../x", "a\nb", "\x1b[2J", "x" * 5_000, "https://u:p@h/", "null", "\ufeffx",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A signed bundle: its parts, its kind, and the folder of the keys."""

    name: str
    kind: Kind
    parts: Parts
    folder: Path
    keys: tuple[str, ...]
    roots: tuple[Path, ...] = ()

    @property
    def required(self) -> tuple[Any, ...]:
        """What the tutorial requires; of other evidence its signature; where a clock is trusted, its time."""
        required = tuple(REQUIRED.split(",")) if self.name in ("audit", "stamped") else ("signature",)
        return (*required, "timestamp") if self.roots else required

    def verified(self, path: Path) -> Verified:
        trusted = [load_public_key(self.folder / f"{key}.pub") for key in self.keys]
        clocks = authorities_of(self.roots, None)
        return verify_evidence(path, stored_probe, trusted=trusted, authorities=clocks)


@pytest.fixture(scope="module")
def subjects(
    tmp_path_factory: pytest.TempPathFactory,
    detected: Path,  # noqa: F811
    dp_audited: Path,  # noqa: F811
) -> Callable[[str], Subject]:
    folder = tmp_path_factory.mktemp("joint")
    bundle = whole(folder)

    def opened(name: str, path: Path, keys: Path, names: tuple[str, ...]) -> Subject:
        parts = unpack(path.read_bytes(), path.name)
        return Subject(name, Manifest.from_bytes(parts[MANIFEST]).kind, parts, keys, names)

    @cache
    def derived() -> Mapping[str, Any]:
        return _made(folder)

    @cache
    def subject(name: str) -> Subject:
        own = ("auditor.key",)
        if name in ("audit", "stamped"):
            made = opened(name, bundle.path, folder, (*own, "registrar.key", "decider.key"))
            if name == "audit":
                return made
            clock = authority(folder / "clock")
            with serving(clock.answer) as url:
                token = timestamp_of(covered(made.parts), url)
            # Whatever is changed and signed anew has this timestamp, of what there was before.
            return replace(made, parts={**made.parts, TIMESTAMP: token}, roots=(clock.root,))
        if name in SCANS:
            return opened(name, scanned(folder, name), folder, own)
        if name in ("detection", "dp_audit"):
            place = detected if name == "detection" else dp_audited
            return opened(name, next(iter(sorted(place.glob("*.zip")))), place, ("k",))
        path, key = folder / f"{name}.zip", folder / "auditor.key"
        if name == "training":
            write_evidence(trained(), path, sign=key)
        else:
            write_derived(path, derived()[name], key=load_private_key(key))
        return opened(name, path, folder, own)

    return subject


def scanned(folder: Path, name: str, *, stories: bool = True) -> Path:
    """The signed bundle of an audit whose rows streamed by, of the log of an evaluation, or of rows without a model."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=200), "sex": rng.choice(["f", "m"], 200)})
    frame["y"] = (frame["a"] + rng.normal(size=200) > 0).astype(int)
    frame.to_csv(folder / "rows.csv", index=False)
    frame[:60].to_csv(folder / "test.csv", index=False)
    joblib.dump(LogisticRegression().fit(frame[["a"]], frame["y"]), folder / "m.joblib")
    samples = [{"id": i, "score": float(rng.random() < 0.8), "lang": ("en", "de")[i % 2]} for i in range(120)]
    if stories:
        # Three samples a story: clusters that no option names, of which no table counts the rows of a group.
        samples = [{**sample, "story": i // 3} for i, sample in enumerate(samples)]
    logs.write_lines(folder / "log.jsonl", samples)
    asked = {
        "streamed": f"scan {folder}/m.joblib --data {folder}/rows.csv --target y --sensitive sex --features a --stream "
        "--probes performance,group_fairness,robustness",
        "logged": f"scan --log {folder}/log.jsonl --score score --sensitive lang",
        "rows_alone": f"scan-data {folder}/rows.csv --test {folder}/test.csv --target y --sensitive sex",
    }
    places = {"--bundle": f"{name}.zip", "--sign": "auditor.key", "--out": "out"}
    words = [word for flag, place in places.items() for word in (flag, str(folder / place))]
    result = CliRunner().invoke(app, [*asked[name].split(), *words, "--quiet"])
    assert result.exit_code in (0, 1, 3), result.output
    return folder / f"{name}.zip"


# ---- changes ---------------------------------------------------------------------------------------------------------


def written(value: object) -> bytes:
    """JSON with whatever is in it: numbers that are none, and text that is none."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def of_json(parts: Parts, rng: Rng) -> str:
    """A part in JSON: the record and the answers by far the most."""
    names = [name for name in parts if name.endswith(".json") and name not in (MANIFEST, SIGNATURE)]
    weights = np.asarray([8 if name == RECORD else 4 if name == RESULTS else 1 for name in names], float)
    return str(rng.choice(names, p=weights / weights.sum()))


def any_field(parts: Parts, rng: Rng) -> None:
    names = [name for name in parts if not name.endswith((".zip", ".dsse.json", ".tsr")) and name != MANIFEST]
    name = str(rng.choice([*names, *[RECORD] * len(names)]))
    made = None
    while made is None:
        made = mutated(name, parts[name], rng)
    parts[name] = made.content


def extreme_number(parts: Parts, rng: Rng) -> None:
    _with_leaf(parts, rng, lambda value: isinstance(value, (int, float)), EXTREME)


def strange_text(parts: Parts, rng: Rng) -> None:
    _with_leaf(parts, rng, lambda value: isinstance(value, str), STRANGE)


def strange_key(parts: Parts, rng: Rng) -> None:
    name = of_json(parts, rng)
    value = json.loads(parts[name])
    keys = drawn(value, rng)
    at = value
    for key in keys[:-1]:
        at = at[key]
    if isinstance(at, dict):
        at[STRANGE[int(rng.integers(len(STRANGE)))]] = at.pop(keys[-1])
    parts[name] = written(value)


def _with_leaf(parts: Parts, rng: Rng, fits: Callable[[object], bool], values: tuple[Any, ...]) -> None:
    """The parts with a leaf of that kind replaced by one of these values."""
    name = of_json(parts, rng)
    document = json.loads(parts[name])
    for _ in range(20):
        keys = drawn(document, rng)
        at = document
        for key in keys[:-1]:
            at = at[key]
        if keys and fits(at[keys[-1]]):
            at[keys[-1]] = values[int(rng.integers(len(values)))]
            break
    parts[name] = written(document)


def other_code(parts: Parts, rng: Rng) -> None:
    parts[LOG] = parts[LOG].replace(code_digests()["responsible-auditor"].encode(), b"0" * 64)


def other_rule(parts: Parts, rng: Rng) -> None:
    def change(record: Any) -> None:
        if isinstance(record.get("family"), dict):
            record["family"]["rule"] = int(rng.choice([0, 1, 3, 2**40]))

    _in_record(parts, change)


def better_finding(parts: Parts, rng: Rng) -> None:
    """A finding of a record, or a difference of a comparison, said to be better than it is."""

    def change(record: Any) -> None:
        lists = [v for v in record.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        with_value = [item for v in lists for item in v if {"value", "outcome", "verdict", "answer"} & item.keys()]
        if not with_value:
            return
        finding = with_value[int(rng.integers(len(with_value)))]
        how = int(rng.integers(4))
        if "outcome" in finding:
            finding["outcome"] = str(rng.choice(["PASS", "NOT_JUDGED", "INCONCLUSIVE"]))
        if "value" in finding and how:
            finding["value"] = float(rng.uniform(-0.1, 0.1))
        if "interval" in finding and how > 1:
            finding["interval"] = [float(x) for x in np.sort(rng.uniform(-0.1, 0.1, 2))]
        if how > 2:
            finding |= {name: 1.0 for name in ("p_fail", "p_pass") if name in finding}

    _in_record(parts, change)


def other_date(parts: Parts, rng: Rng) -> None:
    name = str(rng.choice([n for n in parts if n.endswith((".json", ".jsonl", ".toml")) and n != SIGNATURE]))
    days = re.findall(rb"20[0-9]{2}-[01][0-9]-[0-3][0-9]", parts[name])
    if days and name != MANIFEST:
        day = days[int(rng.integers(len(days)))]
        parts[name] = parts[name].replace(day, str(rng.choice(["2019-02-28", "2026-13-40", "9999-12-31"])).encode(), 1)


def part_moved(parts: Parts, rng: Rng) -> None:
    names = [name for name in parts if name not in (MANIFEST, SIGNATURE)]
    name = str(rng.choice(names))
    new = ["decisions/0.json", "packs/9-x.toml", "configuration/9-x.toml", "letter.txt", "../x", "a\0b", "\u202etxt"]
    content = parts.pop(name) if rng.random() < 0.5 else parts[name]
    if rng.random() < 0.7:
        parts[str(rng.choice([*new, *names]))] = content


CHANGES: tuple[Callable[[Parts, Rng], None], ...] = (
    any_field, any_field, extreme_number, strange_text, strange_key, other_code, other_rule, better_finding,
    other_date, part_moved,
)  # fmt: skip


def _in_record(parts: Parts, change: Callable[[Any], None]) -> None:
    record = json.loads(parts[RECORD])
    change(record)
    parts[RECORD] = written(record)


def made_to_follow(record: dict[str, Any]) -> None:
    """Counts and exit code as the findings have them."""
    record["summary"] = Summary.from_outcomes(Outcome(f["outcome"]) for f in record["findings"]).model_dump(
        by_alias=True
    )
    record["exit_code"] = int(AuditReport.model_validate(record).verdict())


# ---- signed anew -----------------------------------------------------------------------------------------------------


def signed_anew(subject: Subject, parts: Parts, *, follows: bool) -> bytes:
    """The archive of these parts, log, manifest and signature made to fit; ``follows``: the record and log too."""
    if follows and subject.kind == "audit":
        with suppress(ValueError, LookupError, TypeError, AttributeError):
            _in_record(parts, made_to_follow)
    record = _parsed(parts.get(RECORD, b"")) or _parsed(subject.parts[RECORD])
    log = Again()
    for event in events(parts.get(LOG, b"")):
        if follows and event.get("event") == "recorded":
            said = {name: record.get(name) for name in ("created", "exit_code", "summary")}
            exit_code = said["exit_code"] if isinstance(said["exit_code"], int) else 0
            own = said if subject.kind == "audit" else recorded(subject.kind, parts.get(RECORD, b""), exit_code)
            event |= own
        log.line(json.loads(json.dumps(event, default=str)) | {})
    if LOG in parts:
        parts[LOG] = log.to_bytes()
    named = {n: c for n, c in parts.items() if n not in (MANIFEST, SIGNATURE, TIMESTAMP)}
    manifest = build_manifest(named, log, subject.kind)
    parts[MANIFEST] = manifest.to_bytes()
    try:
        if subject.kind == "audit":
            statement = statement_of(manifest, AuditReport.model_validate_json(parts[RECORD]))
        else:
            statement = statement_of_derived(manifest, record, json.loads(parts["request.json"])["about"])
    except (ValueError, KeyError, TypeError, AttributeError):
        statement = b"{}"
    parts[SIGNATURE] = sign(statement, load_private_key(subject.folder / subject.keys[0]))
    return pack(parts)


def _parsed(content: bytes) -> Any:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def with_raw_name(data: bytes, rng: Rng) -> bytes:
    """The archive with bytes that are no text in the name of a part, in its header or wherever it stands."""
    names = sorted({name for name in unpack(data, "a.zip") if name not in (MANIFEST, SIGNATURE)})
    name = str(rng.choice(names)).encode()
    return data.replace(name, b"\xff\xfe" + name[2:], -1 if rng.random() < 0.5 else 1)


# ---- what is valid says what it said ---------------------------------------------------------------------------------


def places(a: Any, b: Any, path: str = "") -> Iterator[str]:
    """Where two values of JSON differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from places(a.get(key), b.get(key), f"{path}.{' '.join(key.split())}".strip("."))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for one, other in zip(a, b, strict=True):
            yield from places(one, other, path)
    elif canonical(a) != canonical(b):
        yield path


def may_differ(subject: Subject, honest: Verified) -> list[str]:
    """The places of a record that a signer may state whatever they like in."""
    if subject.kind == "audit":
        return [path for path, stated in STATED.items() if not (stated.needs or stated.otherwise)]
    said = [each.where.removeprefix("record.json: ") for each in honest.unproven if each.where.startswith(RECORD)]
    return [place for each in said for place in each.split(", ")]


CASES = [("audit", turn) for turn in range(TURNS)] + [(kind, 0) for kind in (*KINDS, "stamped", *SCANS)]


@pytest.mark.grid(every=13)
@pytest.mark.parametrize(("name", "turn"), CASES)
@pytest.mark.usefixtures("known_intervals")
# Numbers beyond all bounds are found out by what they come to.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_is_changed_together_is_never_valid_and_never_an_error(
    subjects: Callable[[str], Subject], tmp_path: Path, name: str, turn: int
) -> None:
    subject, path = subjects(name), tmp_path / "a.zip"
    path.write_bytes(pack(subject.parts))
    honest = subject.verified(path)
    assert honest.exit_code(subject.required) == 0, honest.checks
    allowed, record = may_differ(subject, honest), _parsed(subject.parts[RECORD])
    rng = np.random.default_rng([20261201, turn, *name.encode()])
    valid = []
    for _ in range(OF_OTHERS.get(name, OF_AUDIT)):
        parts = dict(subject.parts)
        chosen = rng.choice(len(CHANGES), int(rng.integers(2, 4)), replace=False)
        for i in chosen:
            # Where another change left nothing that could be changed.
            with suppress(ValueError, LookupError, TypeError, AttributeError):
                CHANGES[i](parts, rng)
        data = signed_anew(subject, parts, follows=bool(rng.random() < 0.5))
        path.write_bytes(with_raw_name(data, rng) if rng.random() < 0.05 else data)
        told = f"{turn}: {', '.join(CHANGES[i].__name__ for i in chosen)}"
        try:
            found = subject.verified(path)
        except AuditorError:
            continue  # it is no bundle
        except Exception as error:
            raise AssertionError(f"{told}: an error of the tool's own") from error
        if found.exit_code(subject.required) == 0:
            other = [p for p in places(record, _parsed(parts[RECORD])) if not lies_under(p, allowed)]
            valid += [f"{told}: {place}" for place in other]
    assert valid == []


# ---- each field alone ------------------------------------------------------------------------------------------------


def fields(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field; of a long list its ends and its middle."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys if isinstance(value, dict) or len(keys) < 4 else (0, len(keys) // 2, len(keys) - 1):
        yield (*before, key)
        yield from fields(value[key], (*before, key))


def others(value: Any) -> tuple[Any, ...]:
    """Other values for a field, of its own kind and of none."""
    if isinstance(value, bool):
        return (not value, None)
    if isinstance(value, (int, float)):
        return (value + 1, value * 1.01, -value, 1e308, None)
    if isinstance(value, str):
        return (value + "x", value[1:], None)
    if isinstance(value, dict):
        return ({**value, "letter": "approved"}, {}, None)
    return ([*value, *value[-1:]], value[1:], None) if isinstance(value, list) else (0, 0.5, "x", [])


def stated_places(unproven: Sequence[Unproven]) -> list[str]:
    """Where nothing is proven, one place each."""
    parts = [each.where.partition(": ") for each in unproven]
    return [f"{part}: {place}" for part, _, places_ in parts for place in places_.split(", ")]


# The training's changes are the cheapest, those of a claimed epsilon the dearest.
SINGLES, SINGLES_OF = 150, {"dp_audit": 60, "streamed": 20, "logged": 60, "rows_alone": 60, "training": 400}


@pytest.mark.grid(every=4)
@pytest.mark.parametrize("name", [*KINDS, *SCANS])
@pytest.mark.usefixtures("known_intervals")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_field_changed_alone_is_valid_where_it_is_not_listed_as_stated(
    subjects: Callable[[str], Subject], tmp_path: Path, name: str
) -> None:
    subject, path = subjects(name), tmp_path / "a.zip"
    path.write_bytes(pack(subject.parts))
    allowed = stated_places(subject.verified(path).unproven)
    parts = {
        n: json.loads(c) for n, c in subject.parts.items() if n.endswith(".json") and n not in (MANIFEST, SIGNATURE)
    }
    ways = [(part, keys, i) for part, document in parts.items() for keys in fields(document) for i in range(5)]
    rng, valid = np.random.default_rng(20261203), list[str]()
    for chosen in rng.permutation(len(ways))[: SINGLES_OF.get(name, SINGLES)]:
        part, keys, i = ways[chosen]
        document = json.loads(subject.parts[part])
        at = document
        for key in keys[:-1]:
            at = at[key]
        new = dict(enumerate(others(at[keys[-1]]))).get(i, at[keys[-1]])
        if new == at[keys[-1]]:
            continue
        at[keys[-1]] = new
        place = f"{part}: {'.'.join(str(key) for key in keys if not isinstance(key, int))}"
        changed = {**subject.parts, part: written(document)}
        path.write_bytes(signed_anew(subject, changed, follows=i % 2 == 0))
        if _parsed(changed[part]) == _parsed(subject.parts[part]):
            continue  # counts and exit code were set right again
        try:
            found = subject.verified(path)
        except AuditorError:
            continue  # it is no bundle
        listed = [*allowed, *stated_places(found.plain_statements)]
        if part == RESULTS and keys[0] == "results" and len(keys) > 2:
            # What is said of one answer is listed by its probe.
            probe = parts[part]["results"][keys[1]]["probe"]
            place = place.replace(f"{RESULTS}: results", f"{RESULTS}: {probe}", 1)
        if found.exit_code(subject.required) == 0 and not lies_under(place, listed):
            valid.append(f"{place}: {keys} is {str(new)[:60]}")
    assert valid == []


@pytest.mark.parametrize(
    ("name", "part", "way"),
    [("training", LOOKS, ("looks", 0, "results", 0, "measurements", 0)), ("tradeoff", TRIED, ())],
    ids=["training", "tradeoff"],
)
def test_a_letter_within_a_part_is_no_part_of_the_evidence(
    subjects: Callable[[str], Subject], tmp_path: Path, name: str, part: str, way: tuple[Any, ...]
) -> None:
    subject, path = subjects(name), tmp_path / "a.zip"
    document = json.loads(subject.parts[part])
    at = document
    for key in way:
        at = at[key]
    at["letter"] = "approved by the authority"
    path.write_bytes(signed_anew(subject, {**subject.parts, part: written(document)}, follows=True))
    assert [check.name for check in subject.verified(path).checks if check.state == "wrong"] == [part]


def test_what_may_be_stated_is_no_value_outcome_interval_count_date_or_group() -> None:
    plain = {path.partition(".")[0] for path, stated in STATED.items() if not (stated.needs or stated.otherwise)}
    bearing = ("findings", "figures", "summary", "family", "exit_code", "created", "decisions", "controls", "policies")
    assert none_of(path in plain for path in bearing)


def test_about_two_thousand_are_tried() -> None:
    assert TURNS * OF_AUDIT + sum(OF_OTHERS.values()) >= 1_950
