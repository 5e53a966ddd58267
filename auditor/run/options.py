"""Every option of a scan, declared once: flags, audit.toml, help, registration and evidence derive from here.

Imports neither pydantic nor numpy, so that ``auditor --help`` costs nothing of them.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from auditor.errors import UsageError
from auditor.finding.profiles import DEFAULT_PROFILE
from auditor.finding.roles import Roles
from auditor.record.about import About
from auditor.record.labels import Labels

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

    from auditor.finding.criterion import Criterion
    from auditor.finding.policy import Policy

FORMATS = "html,json,markdown,pdf,sarif,junit,csv,model-card,model-card-json,ml-bom"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Flag:
    """What is known of an option beside its type and its default.

    ``help``: for whoever types it. ``typed``: what the command line reads for it, before ``read`` makes the option's
    own type of it, from audit.toml too. ``spelled``: the flag, where it is not the option's name. ``is_path``: relative
    to the audit.toml that names it. ``decides``: which numbers there are and how they are judged depends on it, so that
    a registration fixes it. ``of_one_run``: says where this run's answers go, and nothing of what is asked.
    ``runs_code``: code of the user's own runs by it. ``writes``: what is written there; what it names is else read.
    """

    help: str
    typed: Any = str
    read: Callable[[object], object] | None = None
    spelled: str = ""
    is_path: bool = False
    decides: bool = False
    of_one_run: bool = False
    runs_code: bool = False
    writes: Literal["", "file", "folder"] = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        schema = handler(source)
        return schema if self.read is None else core_schema.no_info_before_validator_function(self.read, schema)


def _names(value: object) -> object:
    """``"a,b"`` as a list of names; what is a list already holds names as they are."""
    if isinstance(value, str):
        return names_in(value) or None
    if isinstance(value, (list, tuple)):
        return [name for name in (str(item).strip() for item in value) if name] or None
    return value


def names_in(text: str) -> list[str]:
    """The names in ``a,b,c``; one that holds a comma stands in double quotes, as in CSV. Raises ValueError."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f'{text!r} is no list of names ({error}): write a,b, or a,"b, c" for a comma in one') from None
    return [name.strip() for row in rows for name in row if name.strip()]


def _probe_names(value: object) -> object:
    found = _names(value)
    if value is not None and found is None:
        raise ValueError("it names no probe: leave it out to ask all that apply")
    return found


def _unrepeated(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(dict.fromkeys(value)) if isinstance(value, (list, tuple)) else value


def _text(value: object) -> object:
    return value if value is None else str(value)


def _campaign(value: object) -> object:
    if isinstance(value, str) and not 1 <= len(value.strip()) <= 100:
        raise ValueError("a campaign has a name of 1 to 100 characters")
    return value.strip() if isinstance(value, str) else value


def _day(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is no date: write it like 2026-11-24") from None
    return value


def _json_object(value: object) -> object:
    """What a TOML table may hold and JSON may not, such as a date, is refused here and not on its way to the child."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("it holds what JSON has no word for") from None
    return value


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("Input should be a finite number")
    return value


def _dependent(value: object) -> object:
    if value == "bh":
        raise ValueError("findings of one scan depend on each other, where 'bh' promises nothing: write 'by'")
    return value


def _bytes(value: object) -> object:
    """``"8GiB"``, ``"500M"`` or a number of bytes, as an int."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", value.strip().lower())
        if not match:
            raise ValueError(f"{value!r} is no amount of memory: write it like 8GiB or 500M")
        return int(float(match[1]) * _UNITS[match[2]])
    return value


def memory_limit(text: str | None) -> int:
    """The bytes that ``--max-memory`` says, most of the machine's memory where it says nothing."""
    if text is None:
        return _most_of_memory()
    try:
        found = _bytes(text)
    except ValueError as error:
        raise UsageError(f"--max-memory: {error}.") from None
    if not isinstance(found, int) or found <= 0:
        raise UsageError(f"--max-memory {text!r} must be more than nothing.")
    return found


def _most_of_memory() -> int:
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Every flag of ``scan``, which is also every key of ``[audit]`` and every keyword of :func:`auditor.scan`."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    model: Annotated[str | None, Flag(help="A model file or Hugging Face folder.", is_path=True)] = None
    data: Annotated[
        str | None,
        Flag(
            help="Evaluation rows: CSV, TSV, Parquet, JSON Lines, lines of text, or a database's URL with --query.",
            is_path=True,
        ),
    ] = None
    query: Annotated[
        str | None, Flag(help="File with the SELECT whose rows are read from the database.", is_path=True)
    ] = None
    predictions: Annotated[
        str | None,
        Flag(help="Rows that hold a model's own answers, for want of it: see --score, --predicted.", is_path=True),
    ] = None
    score: Annotated[
        tuple[str, ...],
        Flag(
            help="Its column of the favourable label's probability; or class=column, repeated for every class.",
            typed=list[str],
            read=_unrepeated,
            decides=True,
        ),
    ] = ()
    predicted: Annotated[
        str | None, Flag(help="Its column of the model's decisions, or of predicted numbers.", decides=True)
    ] = None
    loss: Annotated[str | None, Flag(help="Its column of the model's loss on each row.", decides=True)] = None
    generated: Annotated[str | None, Flag(help="Its column of texts that the model wrote.", decides=True)] = None
    train: Annotated[str | None, Flag(help="The rows the model was trained on.", is_path=True)] = None
    target: Annotated[str | None, Flag(help="Column of true labels, or true numbers.", decides=True)] = None
    positive: Annotated[str | None, Flag(help="The favourable label.", read=_text, decides=True)] = None
    sensitive: Annotated[
        tuple[str, ...],
        Flag(help="Column of a sensitive feature; repeat for more.", typed=list[str], read=_unrepeated, decides=True),
    ] = ()
    bins: Annotated[
        tuple[str, ...],
        Flag(
            help="Bins of a continuous sensitive feature: age=18,30,45 or age=quantiles:4.",
            typed=list[str],
            decides=True,
        ),
    ] = ()
    cluster: Annotated[
        str | None,
        Flag(help="Column that says which rows are not independent: a person, site or document.", decides=True),
    ] = None
    weight: Annotated[str | None, Flag(help="Column of the rows' weights in every rate.", decides=True)] = None
    copies_are_real: Annotated[
        bool, Flag(help="Rows that are exact copies are of different people.", typed=bool, decides=True)
    ] = False
    sensitive_file: Annotated[str | None, Flag(help="Table that holds the sensitive features.", is_path=True)] = None
    join_on: Annotated[str | None, Flag(help="Column that --data and --sensitive-file share.", decides=True)] = None
    features: Annotated[
        tuple[str, ...] | None, Flag(help="Columns the model takes, in order: a,b,c.", read=_names, decides=True)
    ] = None
    text: Annotated[str | None, Flag(help="Column of texts, for a text model.", decides=True)] = None
    image: Annotated[str | None, Flag(help="Column of image paths, relative to the table.", decides=True)] = None
    task: Annotated[
        Literal["classification", "regression"] | None,
        Flag(help="classification or regression, where the model's file does not say.", decides=True),
    ] = None
    classes: Annotated[
        tuple[str, ...] | None,
        Flag(help="Class names in the order of the outputs: a,b.", read=_names, decides=True),
    ] = None
    outputs: Annotated[
        Literal["logits", "probabilities"] | None,
        Flag(help="What the model returns: logits or probabilities, where nothing says it.", decides=True),
    ] = None
    threshold: Annotated[
        Annotated[float, Ge(0.0), Le(1.0)] | None,
        Flag(help="Probability from which a decision is favourable.", typed=float, decides=True),
    ] = None
    probes: Annotated[
        tuple[str, ...] | None, Flag(help="Probes to run: a,b. All that apply by default.", read=_probe_names)
    ] = None
    probe: Annotated[
        tuple[str, ...],
        Flag(help="Your own probe: package.module:Class.", typed=list[str], runs_code=True),
    ] = ()
    benchmark: Annotated[
        tuple[str, ...],
        Flag(help="A published benchmark's file: crows_pairs=PATH; repeat for more.", typed=list[str]),
    ] = ()
    scorer: Annotated[
        str | None,
        Flag(help="A text classifier that scores generated text; VADER's sentiment by default.", is_path=True),
    ] = None
    reference: Annotated[
        str | None,
        Flag(help="An earlier model: what changed since, row by row on the same data.", is_path=True),
    ] = None
    ood: Annotated[
        str | None,
        Flag(help="Inputs unlike those it is made for: a table, or a folder of media.", is_path=True),
    ] = None
    policy: Annotated[
        tuple[str, ...],
        Flag(help="What results are held to: profiles, rule packs or TOML files: a,b.", read=_names),
    ] = (DEFAULT_PROFILE,)
    registration: Annotated[
        str | None,
        Flag(
            help="What auditor register wrote: the report says whether this run followed it.",
            is_path=True,
            of_one_run=True,
        ),
    ] = None
    as_of: Annotated[
        date | None,
        Flag(help="Day on which rule packs are held to be in force: 2027-12-02; today by default.", read=_day),
    ] = None
    out: Annotated[
        str,
        Flag(help="Folder for the reports; ./audit-report by default.", is_path=True, of_one_run=True, writes="folder"),
    ] = "audit-report"
    format: Annotated[tuple[str, ...], Flag(help=f"Formats to write: {FORMATS}.", read=_names, of_one_run=True)] = (
        "html",
        "json",
    )
    lang: Annotated[str, Flag(help="Language of the first page: en, de or a catalogue FILE.toml.", of_one_run=True)] = (
        "en"
    )
    history: Annotated[
        bool,
        Flag(help="Append the audit to the history, and show decisions on this model.", typed=bool, of_one_run=True),
    ] = False
    db: Annotated[
        str | None,
        Flag(help="The history: a file or an SQLAlchemy URL; ./audit-history.db by default.", of_one_run=True),
    ] = None
    campaign: Annotated[
        str | None,
        Flag(
            help="Spend one --error-rate over all looks of this name in the history.",
            read=_campaign,
            decides=True,
            of_one_run=True,
        ),
    ] = None
    campaign_looks: Annotated[
        Annotated[int, Ge(1), Le(10_000)] | None,
        Flag(
            help="How many looks there are to be, with equal shares; else the k-th has 1 / (k (k + 1)).",
            typed=int,
            decides=True,
            of_one_run=True,
        ),
    ] = None
    bundle: Annotated[
        str | None,
        Flag(
            help="Write the evidence, which auditor verify checks, to this file.",
            is_path=True,
            of_one_run=True,
            writes="file",
        ),
    ] = None
    sign: Annotated[
        str | None, Flag(help="Sign the evidence with this private key.", is_path=True, of_one_run=True)
    ] = None
    timestamp: Annotated[
        str | None, Flag(help="Ask this time-stamping authority (RFC 3161) when the evidence was there.", of_one_run=True)
    ] = None
    include_rows: Annotated[
        bool, Flag(help="Put every row's groups into the evidence.", typed=bool, of_one_run=True)
    ] = False
    redact: Annotated[
        bool, Flag(help="Leave rows out of the evidence, not their digest.", typed=bool, of_one_run=True)
    ] = False
    json_: Annotated[
        bool,
        Flag(help="Print the report as JSON, and nothing else.", typed=bool, spelled="--json", of_one_run=True),
    ] = False
    quiet: Annotated[bool, Flag(help="Print nothing but errors.", typed=bool, of_one_run=True)] = False
    seed: Annotated[int, Ge(0), Flag(help="Seed; the same seed gives the same report.", typed=int)] = 0
    device: Annotated[str, Flag(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    error_rate: Annotated[
        float,
        Gt(0.0),
        Lt(0.5),
        Flag(help="Chance of any false FAIL in an error budget, and of any false PASS.", typed=float),
    ] = 0.05
    multiplicity: Annotated[
        Literal["bonferroni", "holm", "by", "none"], Flag(help="bonferroni, holm, by or none.", read=_dependent)
    ] = "holm"
    max_memory: Annotated[
        int,
        Gt(0),
        Le(1 << 60),
        Flag(help="Memory for the measuring process, such as 8GiB.", read=_bytes, of_one_run=True),
    ] = field(default_factory=_most_of_memory)
    max_seconds: Annotated[
        float,
        Gt(0.0),
        Flag(help="Seconds for loading, and for each probe.", typed=float, read=_finite, decides=True),
    ] = 600.0
    base: Annotated[
        str | None, Flag(help="The folder of the model that a LoRA adapter changes.", is_path=True, decides=True)
    ] = None
    architecture: Annotated[
        str | None, Flag(help="Network of a bare state_dict: package.module:Class.", decides=True, runs_code=True)
    ] = None
    architecture_args: Annotated[
        dict[str, Any], Flag(help="Its arguments, as a JSON object.", read=_json_object, decides=True)
    ] = field(default_factory=dict)
    predict: Annotated[
        str | None,
        Flag(help="Audit a function instead: package.module:function.", decides=True, runs_code=True),
    ] = None
    allow_code: Annotated[
        bool, Flag(help="Load formats that run code: TorchScript, .pt2.", typed=bool, runs_code=True)
    ] = False
    trust_pickle: Annotated[bool, Flag(help="Unpickle the model: runs what is in it.", typed=bool, runs_code=True)] = (
        False
    )
    allow_unsandboxed: Annotated[
        bool,
        Flag(
            help="Measure outside of the kernel's sandbox, where there is none or code of yours needs more.",
            typed=bool,
            of_one_run=True,
            runs_code=True,
        ),
    ] = False
    allow_inconclusive: Annotated[bool, Flag(help="Exit 0 on INCONCLUSIVE.", typed=bool, decides=True)] = False
    debug: Annotated[
        bool, Flag(help="Show tracebacks and the measuring process's own output.", typed=bool, of_one_run=True)
    ] = False

    @classmethod
    def of(cls, values: Mapping[str, object]) -> ScanOptions:
        """The options of such values; raises pydantic's ValidationError where one is of another type or range."""
        return _adapter().validate_python(dict(values))

    def said(self) -> dict[str, Any]:
        """Every option as JSON has it."""
        found: dict[str, Any] = _adapter().dump_python(self, mode="json")
        return found


@dataclass(frozen=True)
class Configured:
    """A scan as asked for: its options, the options of single probes, what the results are held to, what columns and
    values are called, what is said of whom and what it is about, and which columns hold sex, race and the like."""

    options: ScanOptions
    probe_options: dict[str, dict[str, Any]]
    criteria: tuple[Criterion, ...]
    policies: tuple[Policy, ...] = ()
    labels: Labels = field(default_factory=Labels)
    about: About | None = None
    roles: Roles | None = None


@cache
def flags() -> dict[str, Flag]:
    """Every option's flag, by the option's name."""
    hints = get_type_hints(ScanOptions, include_extras=True)
    return {
        each.name: next(a for a in get_args(hints[each.name]) if isinstance(a, Flag)) for each in fields(ScanOptions)
    }


@cache
def _adapter() -> TypeAdapter[ScanOptions]:
    from pydantic import TypeAdapter

    return TypeAdapter(ScanOptions)
