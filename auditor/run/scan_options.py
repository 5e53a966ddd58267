"""All options of a scan, declared once for flags, audit.toml, help and evidence; imports neither pydantic nor numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from annotated_types import Ge, Gt, Le

from auditor.judging.input_files import Roles
from auditor.judging.profiles import DEFAULT_PROFILE
from auditor.report.record.configuration import About, Labels
from auditor.report.record.report_formats import FORMATS
from auditor.run.option_parsers import (
    as_bytes,
    as_day,
    as_names,
    as_probe_names,
    as_text,
    campaign_name,
    dependent,
    finite,
    json_object,
    most_of_memory,
    unrepeated,
    waivers,
)

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

    from auditor.judging.criterion import Criterion
    from auditor.judging.input_files import ObeyedFile
    from auditor.judging.policy import Policy

# What an audit.toml that lies where a command is started, and that nobody named, may say of an option. asks: anything,
# since it says what is measured; reads: a file inside its own folder; lowers: a limit below the default; given:
# nothing, since that writes, connects, signs, loosens, runs code or says what others see, and wants a flag or --config.
Found = Literal["asks", "reads", "lowers", "given"]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """The metadata of an option beside its type and default.

    ``help``: for whoever types it. ``typed``: what the command line reads for it, before ``read`` makes the option's
    own type of it, from audit.toml too. ``spelled``: the flag, where it is not the option's name. ``is_path``: relative
    to the audit.toml that names it. ``decides``: which numbers there are and how they are judged depends on it, so that
    a registration fixes it; ``since_registrations``: only where it is not the default, so that what was registered
    before there was this option stays as it is. ``of_one_run``: says where this run's answers go, and nothing of what
    is asked. ``runs_code``: code of the user's own runs by it. ``writes``: what is written there; what it names is else
    read. ``found``: what of it an audit.toml may say that was only found.
    """

    help: str
    found: Found
    typed: Any = str
    read: Callable[[object], object] | None = None
    spelled: str = ""
    is_path: bool = False
    decides: bool = False
    since_registrations: bool = False
    of_one_run: bool = False
    runs_code: bool = False
    writes: Literal["", "file", "folder"] = ""

    def key(self, name: str) -> str:
        """The option's key under ``[audit]``, by its name."""
        return self.spelled.removeprefix("--") or name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        schema = handler(source)
        return schema if self.read is None else core_schema.no_info_before_validator_function(self.read, schema)


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Every flag of ``scan``, which is also every key of ``[audit]`` and every keyword of :func:`auditor.scan`."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    model: Annotated[
        str | None, Flag(help="A model file, a Hugging Face folder, or a server's URL.", found="reads", is_path=True)
    ] = None
    model_name: Annotated[str | None, Flag(help="Name of the model on the server.", found="given", decides=True)] = None
    api_key_env: Annotated[
        str | None,
        Flag(help="Environment variable that contains the server's API key.", found="given", of_one_run=True),
    ] = None
    max_calls: Annotated[int, Ge(1), Flag(help="Maximum number of server calls.", found="lowers", typed=int)] = 10_000
    concurrency: Annotated[
        int, Ge(1), Le(256), Flag(help="Number of concurrent server calls.", found="given", typed=int, of_one_run=True)
    ] = 4
    thinking_tokens: Annotated[int, Ge(0), Flag(help="Tokens to think.", found="given", typed=int, decides=True)] = 0
    reasoning_effort: Annotated[str | None, Flag(help="Reasoning effort: low.", found="given", decides=True)] = None
    allow_remote: Annotated[
        bool, Flag(help="Allow texts to be sent to another machine.", found="given", typed=bool, of_one_run=True)
    ] = False
    data: Annotated[
        str | None,
        Flag(
            help="Evaluation rows: CSV, TSV, Parquet, JSON Lines, lines of text, or a database's URL with --query.",
            found="reads",
            is_path=True,
        ),
    ] = None
    query: Annotated[
        str | None,
        Flag(help="File with the SELECT whose rows are read from the database.", found="given", is_path=True),
    ] = None
    predictions: Annotated[
        str | None,
        Flag(
            help="Table of a model's predictions (see --score, --predicted), or a folder of generated media.",
            found="reads",
            is_path=True,
        ),
    ] = None
    log: Annotated[
        str | None,
        Flag(help="Log of an evaluation: Inspect, lm-eval, HELM, garak, EEE, JSON Lines.", found="reads", is_path=True),
    ] = None
    score: Annotated[
        tuple[str, ...],
        Flag(
            help="Column of --predictions with the favourable label's probability, or class=column; score of --log.",
            found="asks",
            typed=list[str],
            read=unrepeated,
            decides=True,
        ),
    ] = ()
    predicted: Annotated[
        str | None,
        Flag(help="Column with the predicted labels or numbers (--predictions).", found="asks", decides=True),
    ] = None
    loss: Annotated[
        str | None, Flag(help="Column with the model's loss per row (--predictions).", found="asks", decides=True)
    ] = None
    generated: Annotated[
        str | None, Flag(help="Column with generated texts (--predictions).", found="asks", decides=True)
    ] = None
    train: Annotated[str | None, Flag(help="Training rows of the model.", found="reads", is_path=True)] = None
    target: Annotated[str | None, Flag(help="Column with the true labels or numbers.", found="asks", decides=True)] = (
        None
    )
    positive: Annotated[str | None, Flag(help="The favourable label.", found="asks", read=as_text, decides=True)] = None
    sensitive: Annotated[
        tuple[str, ...],
        Flag(
            help="Column of a sensitive feature; repeat for more.",
            found="asks",
            typed=list[str],
            read=unrepeated,
            decides=True,
        ),
    ] = ()
    bins: Annotated[
        tuple[str, ...],
        Flag(
            help="Bins of a continuous sensitive feature: age=18,30,45 or age=quantiles:4.",
            found="asks",
            typed=list[str],
            decides=True,
        ),
    ] = ()
    cluster: Annotated[
        str | None,
        Flag(
            help="Column that identifies the cluster of dependent rows: a person, site or document.",
            found="asks",
            decides=True,
        ),
    ] = None
    weight: Annotated[
        str | None, Flag(help="Column with the sampling weights of the rows.", found="asks", decides=True)
    ] = None
    cluster_at_most: Annotated[
        Annotated[int, Ge(1)] | None,
        Flag(
            help="State the most rows that any cluster can have, seen or not.",
            found="given",
            decides=True,
            since_registrations=True,
        ),
    ] = None
    weight_at_most: Annotated[
        Annotated[float, Gt(0)] | None,
        Flag(
            help="State the largest weight that any row can have, seen or not.",
            found="given",
            decides=True,
            since_registrations=True,
        ),
    ] = None
    copies_are_real: Annotated[
        bool, Flag(help="Exact copies of rows are of different people.", found="given", typed=bool, decides=True)
    ] = False
    stream: Annotated[
        bool,
        Flag(
            help="Read the rows in parts, without keeping them in memory.",
            found="asks",
            typed=bool,
            decides=True,
            since_registrations=True,
        ),
    ] = False
    no_controls: Annotated[
        bool,
        Flag(help="Plant no known faults.", found="given", typed=bool, decides=True, since_registrations=True),
    ] = False
    check_predictions: Annotated[
        str | None,
        Flag(help="Answers it must give: a column or file.", found="given", decides=True, since_registrations=True),
    ] = None
    sensitive_file: Annotated[
        str | None, Flag(help="Separate table with the sensitive features.", found="reads", is_path=True)
    ] = None
    join_on: Annotated[
        str | None, Flag(help="Key column of --data and --sensitive-file.", found="asks", decides=True)
    ] = None
    features: Annotated[
        tuple[str, ...] | None,
        Flag(help="Columns the model takes, in order: a,b,c.", found="asks", read=as_names, decides=True),
    ] = None
    text: Annotated[str | None, Flag(help="Column of texts, for a text model.", found="asks", decides=True)] = None
    image: Annotated[
        str | None, Flag(help="Column of image paths, relative to the table.", found="asks", decides=True)
    ] = None
    task: Annotated[
        Literal["classification", "regression"] | None,
        Flag(help="classification or regression, if the model's file does not state it.", found="asks", decides=True),
    ] = None
    classes: Annotated[
        tuple[str, ...] | None,
        Flag(help="Class names in the order of the outputs: a,b.", found="asks", read=as_names, decides=True),
    ] = None
    outputs: Annotated[
        Literal["logits", "probabilities"] | None,
        Flag(
            help="Output type of the model: logits or probabilities, if its file does not state it.",
            found="asks",
            decides=True,
        ),
    ] = None
    threshold: Annotated[
        Annotated[float, Ge(0.0), Le(1.0)] | None,
        Flag(
            help="Decision threshold: minimum probability of a favourable decision.",
            found="asks",
            typed=float,
            decides=True,
        ),
    ] = None
    probes: Annotated[
        tuple[str, ...] | None,
        Flag(help="Probes to run: a,b. All that apply by default.", found="asks", read=as_probe_names),
    ] = None
    probe: Annotated[
        tuple[str, ...],
        Flag(help="Your own probe: package.module:Class.", found="given", typed=list[str], runs_code=True),
    ] = ()
    benchmark: Annotated[
        tuple[str, ...],
        Flag(help="File of a published benchmark: crows_pairs=PATH; repeat for more.", found="reads", typed=list[str]),
    ] = ()
    benchmark_filter: Annotated[
        tuple[str, ...],
        Flag(
            help="File with item ids to exclude from a benchmark, one per line: crows_pairs=PATH.",
            found="given",
            typed=list[str],
        ),
    ] = ()
    scorer: Annotated[
        str | None,
        Flag(
            help="Text classifier that scores generated texts; VADER sentiment by default.", found="reads", is_path=True
        ),
    ] = None
    judge: Annotated[
        str | None,
        Flag(help="Model that judges generated texts: a server's URL, or a folder.", found="given", is_path=True),
    ] = None
    judge_name: Annotated[
        str | None,
        Flag(help="Name of the judge on its server.", found="given", decides=True, since_registrations=True),
    ] = None
    judge_key_env: Annotated[
        str | None, Flag(help="Environment variable that contains its API key.", found="given", of_one_run=True)
    ] = None
    calibration: Annotated[
        str | None,
        Flag(
            help="CSV of human-labelled texts (of a log: samples) to measure the scorer's errors.",
            found="reads",
            is_path=True,
        ),
    ] = None
    chat: Annotated[
        Literal["auto", "on", "off"],
        Flag(help="Use the chat template of a language model: auto (if it has one), on or off.", found="asks"),
    ] = "auto"
    system: Annotated[
        str | None, Flag(help="File with the system message for the chat template.", found="reads", is_path=True)
    ] = None
    few_shot: Annotated[
        int,
        Ge(0),
        Le(100),
        Flag(help="Number of solved benchmark examples before each question.", found="asks", typed=int),
    ] = 0
    reference: Annotated[
        str | None,
        Flag(
            help="Reference model: an earlier version, or the model that a URL should serve.",
            found="reads",
            is_path=True,
        ),
    ] = None
    quantize: Annotated[
        Literal["int8", "int4"] | None,
        Flag(help="Compare the model with its quantised version: int8 or int4.", found="asks"),
    ] = None
    ood: Annotated[
        str | None, Flag(help="Out-of-distribution inputs: a table, or a folder of media.", found="reads", is_path=True)
    ] = None
    decoder: Annotated[
        tuple[str, ...],
        Flag(
            help="Your watermark decoder: package.module:function.",
            found="given",
            typed=list[str],
            read=unrepeated,
            runs_code=True,
        ),
    ] = ()
    embedder: Annotated[
        str | None,
        Flag(help="Face/voice encoder: an ONNX file or package.module:function.", found="given", runs_code=True),
    ] = None
    policy: Annotated[
        tuple[str, ...],
        Flag(help="Acceptance criteria: profiles, rule packs or TOML files: a,b.", found="given", read=as_names),
    ] = (DEFAULT_PROFILE,)
    registration: Annotated[
        str | None,
        Flag(
            help="Pre-registration file of auditor evidence register; the report lists deviations from it.",
            found="given",
            is_path=True,
            of_one_run=True,
        ),
    ] = None
    as_of: Annotated[
        date | None,
        Flag(
            help="Reference date for the rule packs in force: 2027-12-02; today by default.", found="given", read=as_day
        ),
    ] = None
    out: Annotated[
        str,
        Flag(
            help="Folder for the reports; ./audit-report by default.",
            found="given",
            is_path=True,
            of_one_run=True,
            writes="folder",
        ),
    ] = "audit-report"
    format: Annotated[
        tuple[str, ...], Flag(help=f"Formats to write: {FORMATS}.", found="given", read=as_names, of_one_run=True)
    ] = ("html", "json")
    lang: Annotated[
        str, Flag(help="Language of the report: en, de or a catalogue FILE.toml.", found="given", of_one_run=True)
    ] = "en"
    history: Annotated[
        bool,
        Flag(
            help="Append the audit to the history, and show decisions on this model.",
            found="given",
            typed=bool,
            of_one_run=True,
        ),
    ] = False
    db: Annotated[
        str | None,
        Flag(
            help="The history: a file or an SQLAlchemy URL; ./audit-history.db by default.",
            found="given",
            of_one_run=True,
        ),
    ] = None
    campaign: Annotated[
        str | None,
        Flag(
            help="Control one --error-rate over all audits of this campaign name in the history.",
            found="given",
            read=campaign_name,
            decides=True,
            of_one_run=True,
        ),
    ] = None
    campaign_looks: Annotated[
        Annotated[int, Ge(1), Le(10_000)] | None,
        Flag(
            help="Planned number of audits in the campaign, with equal shares; else the k-th has 1 / (k (k + 1)).",
            found="given",
            typed=int,
            decides=True,
            of_one_run=True,
        ),
    ] = None
    bundle: Annotated[
        str | None,
        Flag(
            help="Write the evidence bundle (see auditor evidence verify) to this file.",
            found="given",
            is_path=True,
            of_one_run=True,
            writes="file",
        ),
    ] = None
    sign: Annotated[
        str | None, Flag(help="Sign the evidence with this private key.", found="given", is_path=True, of_one_run=True)
    ] = None
    timestamp: Annotated[
        str | None,
        Flag(help="URL of a time-stamping authority (RFC 3161) for the evidence.", found="given", of_one_run=True),
    ] = None
    include_rows: Annotated[
        bool,
        Flag(
            help="Include the groups and membership scores of every row in the evidence.",
            found="given",
            typed=bool,
            of_one_run=True,
        ),
    ] = False
    redact: Annotated[
        bool,
        Flag(help="Leave rows out of the evidence but for their digest.", found="given", typed=bool, of_one_run=True),
    ] = False
    json_: Annotated[
        bool, Flag(help="Print only the report as JSON.", found="given", typed=bool, spelled="--json", of_one_run=True)
    ] = False
    quiet: Annotated[bool, Flag(help="Print only errors.", found="given", typed=bool, of_one_run=True)] = False
    seed: Annotated[int, Ge(0), Flag(help="Seed; the same seed gives the same report.", found="asks", typed=int)] = 0
    device: Annotated[str, Flag(help="auto, cpu, cuda, cuda:1, ...", found="asks")] = "auto"
    executor: Annotated[
        Literal["local", "ray"],
        Flag(help="Where to train shadow models: local or ray.", found="given", of_one_run=True),
    ] = "local"
    address: Annotated[
        str | None, Flag(help="Address of the Ray cluster: host:6379.", found="given", of_one_run=True)
    ] = None
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Flag(
            help="Compute dtype of a language model: auto, bfloat16, float16 or float32.",
            found="asks",
            decides=True,
            since_registrations=True,
        ),
    ] = "auto"
    device_map: Annotated[
        Literal["auto", "balanced", "sequential"] | None,
        Flag(help="Distribute a language model over all GPUs: auto, balanced or sequential.", found="asks"),
    ] = None
    error_rate: Annotated[
        float,
        Gt(0.0),
        Le(0.2),
        Flag(
            help="Family-wise error rate of each error budget, for FAIL and for PASS separately; at most 0.2.",
            found="given",
            typed=float,
        ),
    ] = 0.05
    multiplicity: Annotated[
        Literal["bonferroni", "holm", "by", "none"],
        Flag(help="Multiple-testing correction: bonferroni, holm, by or none.", found="given", read=dependent),
    ] = "holm"
    max_memory: Annotated[
        int,
        Gt(0),
        Le(1 << 60),
        Flag(
            help="Memory limit of the measuring process, such as 8GiB.", found="lowers", read=as_bytes, of_one_run=True
        ),
    ] = field(default_factory=most_of_memory)
    max_seconds: Annotated[
        float,
        Gt(0.0),
        Flag(
            help="Time limit in seconds for loading, and for each probe.",
            found="lowers",
            typed=float,
            read=finite,
            decides=True,
        ),
    ] = 600.0
    base: Annotated[
        str | None, Flag(help="Folder of the base model of a LoRA adapter.", found="reads", is_path=True, decides=True)
    ] = None
    trust_anchors: Annotated[
        str | None,
        Flag(help="Key, authority or trusted root of its signature.", found="given", is_path=True, of_one_run=True),
    ] = None
    model_signer: Annotated[
        str | None, Flag(help="Signer of a keyless signature: ISSUER=IDENTITY.", found="given", of_one_run=True)
    ] = None
    architecture: Annotated[
        str | None,
        Flag(
            help="Network class of a bare state_dict: package.module:Class.",
            found="given",
            decides=True,
            runs_code=True,
        ),
    ] = None
    architecture_args: Annotated[
        dict[str, Any],
        Flag(help="Arguments of the network class, as a JSON object.", found="given", read=json_object, decides=True),
    ] = field(default_factory=dict)
    predict: Annotated[
        str | None,
        Flag(
            help="Audit a prediction function instead of a model file: package.module:function.",
            found="given",
            decides=True,
            runs_code=True,
        ),
    ] = None
    generate: Annotated[
        str | None,
        Flag(
            help="Audit a text generation function: package.module:function.",
            found="given",
            decides=True,
            runs_code=True,
        ),
    ] = None
    allow_code: Annotated[
        bool, Flag(help="Load formats that execute code: TorchScript, .pt2.", found="given", typed=bool, runs_code=True)
    ] = False
    trust_pickle: Annotated[
        bool, Flag(help="Unpickle the model, which executes any code in it.", found="given", typed=bool, runs_code=True)
    ] = False
    allow_unsandboxed: Annotated[
        bool,
        Flag(
            help="Measure without the kernel's sandbox, if it is unavailable or your code needs more rights.",
            found="given",
            typed=bool,
            of_one_run=True,
            runs_code=True,
        ),
    ] = False
    allow_inconclusive: Annotated[
        tuple[str, ...],
        Flag(
            help="Pillar or probe whose INCONCLUSIVE findings change no exit code: NAME or NAME=WHO: WHY; repeat.",
            found="given",
            typed=list[str],
            read=waivers,
            decides=True,
        ),
    ] = ()
    debug: Annotated[
        bool, Flag(help="Show tracebacks and the process's output.", found="given", typed=bool, of_one_run=True)
    ] = False

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> ScanOptions:
        """The options with these values; raises pydantic's ValidationError for a wrong type or range."""
        return _adapter().validate_python(dict(values))

    def json_values(self) -> dict[str, Any]:
        """Every option in JSON form."""
        found: dict[str, Any] = _adapter().dump_python(self, mode="json")
        # Plans and requests of before waivers had names say False.
        return found | {"allow_inconclusive": found["allow_inconclusive"] or False}


@dataclass(frozen=True)
class Configured:
    """A configured scan: its options, the options of single probes, the requirements, the display names of columns and
    values, the statements on identity, the columns of sex, race and other roles, and the files that determined all of
    it."""

    options: ScanOptions
    probe_options: dict[str, dict[str, Any]]
    criteria: tuple[Criterion, ...]
    policies: tuple[Policy, ...] = ()
    labels: Labels = field(default_factory=Labels)
    about: About | None = None
    roles: Roles | None = None
    obeyed: tuple[ObeyedFile, ...] = ()


@cache
def flags() -> dict[str, Flag]:
    """Every option's flag, by the option's name."""
    hints = get_type_hints(ScanOptions, include_extras=True)
    return {f.name: next(a for a in get_args(hints[f.name]) if isinstance(a, Flag)) for f in fields(ScanOptions)}


@cache
def _adapter() -> TypeAdapter[ScanOptions]:
    from pydantic import TypeAdapter

    return TypeAdapter(ScanOptions)
