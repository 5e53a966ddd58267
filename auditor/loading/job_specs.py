"""Job specifications as plain data for the sandboxed process; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from pydantic import ConfigDict, JsonValue

from auditor.core.files import table_place
from auditor.data.table_schema import TableSchema
from auditor.models.endpoint.server_findings import Handshake, ServedTexts


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The model and its loading options; one field per model flag of the command line.

    ``path`` is None only with ``predict``, ``generate`` or an ``endpoint``, which is what its server was shown to do.
    ``base``: the model that an adapter changes. ``task``: None means what the file says, else classification.
    ``outputs``:
    None means what the file or the network says, else logits where its answers can be nothing else. ``architecture``: a
    key of ARCHITECTURES, or ``package.module:Class`` of the user's own. ``dtype``: the numbers that a language model is
    computed in, which :mod:`auditor.loading.language_models` reads. ``device_map``: how it is spread over all cards, or
    None for one device. ``mapped``: whether weights may stay in their files,
    as pages of them: in a process of its own, since whoever shortens such a file meanwhile ends it. ``code_folder``:
    where the user's own modules
    lie; it is put on the import path only where a flag names one of them.
    """

    path: str | None = None
    base: str | None = None
    task: Literal["classification", "regression"] | None = None
    classes: tuple[str, ...] | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    threshold: float | None = None
    architecture: str | None = None
    architecture_args: dict[str, JsonValue] = field(default_factory=dict)
    predict: str | None = None
    generate: str | None = None
    endpoint: Handshake | None = None
    allow_code: bool = False
    trust_pickle: bool = False
    features: tuple[str, ...] | None = None
    device: str = "cpu"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device_map: Literal["auto", "balanced", "sequential"] | None = None
    code_folder: str | None = None
    mapped: bool = False


@dataclass(frozen=True, kw_only=True)
class RecordedSpec:
    """The columns of the data files with a model's recorded answers; the model itself is absent.

    ``score``: the column of the probability of the favourable label, or ``class=column`` for each class. ``predicted``:
    that of decisions, or of a regression's numbers; ``loss``: of the model's loss; ``generated``: of texts it wrote.
    ``is_log``: whether the data are the log of an evaluation, of which ``score`` names one score; ``rows_alone``:
    whether there are no answers, since there is no model.
    """

    score: tuple[str, ...] = ()
    predicted: str | None = None
    loss: str | None = None
    generated: str | None = None
    is_log: bool = False
    rows_alone: bool = False


# Fields that need all rows at once.
_ALL_ROWS = (
    *("train", "cluster", "weight", "cluster_at_most", "weight_at_most"),
    *("bins", "sensitive_file", "text", "image", "check_predictions"),
)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The roles of files and columns; one field per data flag of the command line.

    ``bins``: rules for continuous sensitive features, as in :mod:`auditor.data.bins`. ``recorded``: where the model is
    known by its answers in the files alone. ``cluster``: the column that says which rows belong together; ``weight``:
    that of what each row weighs; ``cluster_at_most``, ``weight_at_most``: the most rows of a cluster and the largest
    weight that there can be. ``copies_are_real``: whether rows that are exact copies are rows of their own.
    ``stream``: whether rows are counted as they are read, and none is held. ``check_predictions``: a column of
    ``path``, or a file, of what the model's own process answered on these rows, which the loaded model must answer too.
    ``labels``: words by keys of columns, ``column`` or ``column.value``, that are to be there, ``roles``: such keys;
    ``reference_groups``: groups by feature.
    """

    path: str
    train: str | None = None
    target: str | None = None
    positive: str | None = None
    sensitive_file: str | None = None
    join_on: str | None = None
    features: tuple[str, ...] | None = None
    text: str | None = None
    image: str | None = None
    sensitive: tuple[str, ...] = ()
    bins: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    recorded: RecordedSpec | None = None
    cluster: str | None = None
    weight: str | None = None
    cluster_at_most: int | None = None
    weight_at_most: float | None = None
    copies_are_real: bool = False
    stream: bool = False
    check_predictions: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    reference_groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    roles: tuple[str, ...] = ()

    @property
    def why_not_in_parts(self) -> str:
        """The reason why its flags keep rows from being counted as they are read, in a sentence, or ""."""
        held = (name for name in _ALL_ROWS if getattr(self, name))
        return next(
            (f"--{name.replace('_', '-')} needs all rows at once: leave it or --stream out." for name in held), ""
        )

    @property
    def why_not_held_out(self) -> str:
        """Why the evaluation rows are not other rows than the training rows: both are one file; "" if they are not."""
        if self.train is None:
            return ""
        (train, own), (data, other) = table_place(self.train), table_place(self.path)
        same = own == other and train.samefile(data)
        return "--train and --data are the same file: they must be different rows." if same else ""


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """A probe by name, its ``package.module:Class``, and its options.

    ``distribution``: of one that was found by its entry point, the distribution that brings it, and its version.
    ``own``: whether it is a class of the user's own.
    """

    name: str
    target: str
    options: dict[str, JsonValue] = field(default_factory=dict)
    distribution: str = ""
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class MitigationSpec:
    """A mitigation by name, its ``package.module:Class``, its options, and the output file of its new model.

    ``checkpoint``: where the training keeps what it has, so that an interrupted one goes on. ``asked_rows``: a data
    file of which it is written beside ``out`` what a new classifier answers.
    """

    name: str
    target: str
    out: str
    options: dict[str, JsonValue] = field(default_factory=dict)
    checkpoint: str | None = None
    asked_rows: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExplainSpec:
    """The rows to explain, counted from 1, the ``package.module:function`` for it, and its options.

    ``where``: further rows by ``(column, value)``, each of which must be one row's alone.
    ``immutable``: columns that recourse leaves as they are; ``monotone``: ``column=up`` or ``column=down``, the one way
    that it may go. ``n_reasons``, ``n_recourses``: how many of each at most. ``draws``: of what is typical; None means
    what the rows' kind takes. ``budget``: questions for recourse.
    """

    target: str
    rows: tuple[int, ...]
    where: tuple[tuple[str, str], ...] = ()
    immutable: tuple[str, ...] = ()
    monotone: tuple[str, ...] = ()
    n_reasons: int = 4
    n_recourses: int = 3
    draws: int | None = None
    budget: int = 20_000


@dataclass(frozen=True, kw_only=True)
class DetectionSpec:
    """The files to examine, each named once in the form of :func:`auditor.core.files.encode_path`, and the options.

    ``trust_anchors``: certificates in PEM that a signature of Content Credentials must lead to to be trusted.
    ``with_calibration``: whether the detector's calibration scores are sent too. ``scores_only``: whether every file
    gets its score, unsupported or not, and nothing is read of its making. ``error_rate``: that stands in for the
    card's. ``card``: the JSON of the card that stands in for the detector's own; ``out``: where the detector with it is
    written. ``meanings``: what classes mean by their names, where any classifier will do that is then made a detector;
    None where it must be one already. ``folders``: names that may be among those and are not of its classes.
    ``changes``: the ``package.module:function`` that gives a file's changed versions, which are scored too.
    """

    files: tuple[str, ...]
    trust_anchors: str | None = None
    with_calibration: bool = False
    scores_only: bool = False
    error_rate: float | None = None
    card: str | None = None
    out: str | None = None
    meanings: dict[str, Literal["fake", "real", "neither"]] | None = None
    folders: tuple[str, ...] = ()
    changes: str | None = None


@dataclass(frozen=True, kw_only=True)
class DetectorTrainingSpec:
    """The detector to train, its ``package.module:function``, and its files.

    ``folder``: with one sub-folder per class. ``fake``: the sub-folder of synthetic files, None where its name says it.
    ``medium``: ``image`` or ``speech``, None where the files say it.
    ``kinds``: a table with the paths below the folder in ``join_on``, the generator of each synthetic file in
    ``kind_column`` and the source or speaker of each real one in ``source_column``. ``options``: of the function.
    """

    target: str
    folder: str
    out: str
    medium: str | None = None
    fake: str | None = None
    kinds: str | None = None
    join_on: str = "file"
    kind_column: str | None = None
    source_column: str | None = None
    options: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """The training's model, data and options; one field per flag of ``train``.

    ``features``: None means every column but the target, ``drop``, ``weight``, ``group_column`` and, but for those of
    ``keep``, columns that name rows or persons, dates and weights of surveys. ``group_column``: no value of it stands
    among the rows trained on and among those held back. ``weight``: the column of each row's weight in the loss and in
    the accuracy. ``epochs``: the most that early stopping may use, and the exact number under ``dp_epsilon``.
    ``architecture``: ``mlp``, or ``package.module:Class`` of the user's own, found on the import path or in
    ``code_folder``. ``dp_delta``: None means ``n^-1.1`` of the n training rows. ``learning_rate``: None means 0.001,
    and 0.01 under ``dp_epsilon``. ``batch_size``: None means 128, and under ``dp_epsilon`` a sixteenth of the rows, of
    128 to 2,048. ``schema``: what is public of the columns, from which alone they are then encoded. ``dp_trials``: how
    many trainings on these rows the choice of this one rests on, as somebody says. ``dp_encoding_share``: of
    ``dp_epsilon``, for learning the encoding without a schema; None means 0.2, and 0 learns it in the clear.
    ``dp_noise_seed``: None draws it from the operating system and keeps it nowhere; whoever knows it can take the noise
    out again, so it is for tests.
    """

    # Every number that a flag can say arrives, those too that will be refused.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    data: str
    target: str
    positive: str | None = None
    features: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    group_column: str | None = None
    weight: str | None = None
    test_share: float = 0.3
    epochs: int = 50
    hidden: tuple[int, ...] = (64, 32)
    learning_rate: float | None = None
    batch_size: int | None = None
    seed: int = 0
    device: str = "auto"
    architecture: str = "mlp"
    architecture_args: Mapping[str, object] = field(default_factory=dict)
    code_folder: str | None = None
    dp_epsilon: float | None = None
    dp_delta: float | None = None
    dp_noise_seed: int | None = None
    dp_trials: int | None = None
    dp_encoding_share: float | None = None
    schema: TableSchema | None = None
    max_grad_norm: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TableTrainingSpec:
    """A training on a table, and its output files: the bundle, the training rows, the held-out rows, and what the model
    answers on these.

    They are paths as :func:`auditor.core.files.encode_path` writes them, and so is ``table.data``.
    """

    table: TrainSpec
    out: str
    train_out: str
    test_out: str
    predictions_out: str


# What is added to the name of an exported file, or of a new model, for the file of its answers.
PREDICTIONS = ".predictions.csv"


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """An export: its format (``onnx``, ``torch`` or ``sklearn``), and its output file in the form of
    :func:`auditor.core.files.encode_path`. What it answers on the rows, if there are any, is written beside it.

    ``positive``: the favourable label.
    """

    to: Literal["onnx", "torch", "sklearn"]
    out: str
    positive: str | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the measuring process: bytes of memory, and seconds for loading and for each probe or file."""

    memory_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """The complete job of a measuring process; ``parent``: the process that it must not outlive.

    ``evidence``: what of the model's answers is kept beside the measurements, by row: its scores, or each row's groups
    too. ``recognise``: whether the rows are to be known again where they are shuffled or saved anew. With a
    ``mitigation`` it makes a new model of the old one and the rows of ``data``, and asks no probe; with an ``explain``
    it explains rows of ``data``; with an ``export`` it writes the model anew; with ``served`` texts
    it holds them against it. With a ``detection`` it examines files,
    by the model where there is one; with a ``detector_training`` it trains a detector, and with a ``table_training`` a
    classifier. ``allow_unsandboxed``: whether it goes without the kernel's sandbox. ``tasks``: a folder whose tasks the
    parent hands out, where not all is done in the process itself. ``modules``: of the user's own code, beside those
    that are named elsewhere; ``closed``: files that such code may not open. ``planting``: of planted controls, as JSON.
    ``judge``: what the server of a judge of texts was shown to do, or why it is not to be had.
    """

    model: ModelSpec
    data: DataSpec | None
    probes: tuple[ProbeSpec, ...]
    seed: int
    limits: Limits
    with_intake: bool = True
    evidence: Literal["scores", "rows"] | None = None
    recognise: bool = False
    mitigation: MitigationSpec | None = None
    explain: ExplainSpec | None = None
    detection: DetectionSpec | None = None
    detector_training: DetectorTrainingSpec | None = None
    table_training: TableTrainingSpec | None = None
    export: ExportSpec | None = None
    served: ServedTexts | None = None
    allow_unsandboxed: bool = False
    tasks: str | None = None
    parent: int | None = None
    planting: str | None = None
    judge: Handshake | str | None = None
    modules: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


def flag_of_code(job: Job) -> str | None:
    """The flag by which the job runs code of the file or of the user; None if it runs none."""
    model = job.model
    given = {
        "--predict": model.predict is not None
        or (job.mitigation is not None and job.mitigation.options.get("predict") is not None),
        "--generate": model.generate is not None,
        "--allow-code": model.allow_code,
        "--trust-pickle": model.trust_pickle,
        "--architecture": model.architecture is not None and ":" in model.architecture,
        "--decoder": bool(_code_in(job, "decoder")),
        "--embedder": bool(_code_in(job, "embedder")),
        "--probe": model.code_folder is not None,
    }
    return next((name for name, is_given in given.items() if is_given), None)


def _code_in(job: Job, option: str) -> list[str]:
    """The functions of the user's own that an option of probes names."""
    named = [spec.options.get(option) for spec in job.probes]
    texts = [text for value in named for text in (value if isinstance(value, list | tuple) else [value])]
    return [text for text in texts if isinstance(text, str) and ":" in text]


def modules_of_code(job: Job) -> list[str]:
    """The modules of the user's own that flags of the job name."""
    model = job.model
    named: list[object] = [model.predict, model.generate, model.architecture]
    named += [spec.target for spec in job.probes if spec.own]
    named += [] if job.mitigation is None else [job.mitigation.options.get("predict")]
    named += [*_code_in(job, "decoder"), *_code_in(job, "embedder")]
    return [*job.modules, *(text.partition(":")[0] for text in named if isinstance(text, str) and ":" in text)]


def turn_of(job: Job, probes: tuple[ProbeSpec, ...]) -> Job:
    """The job with some of its probes, and as much code as they and the model need."""
    own = any(spec.own for spec in probes)
    turn = replace(job, probes=probes, evidence=None if own else job.evidence)
    return turn if modules_of_code(turn) else replace(turn, model=replace(turn.model, code_folder=None))


def answers_apart(job: Job) -> bool:
    """Whether the code of a job only answers questions, so that it runs in a process that has nothing else."""
    functions = job.model.predict is not None or job.model.generate is not None
    functions |= bool(_code_in(job, "decoder") or _code_in(job, "embedder"))
    made = (job.mitigation, job.export, job.detector_training, job.table_training)
    others = (*made, job.explain, job.detection, job.served)
    own = any(spec.own for spec in job.probes)
    if functions:
        return all(spec is None for spec in made) and not own
    return flag_of_code(job) not in (None, "--probe") and all(spec is None for spec in others) and not own


def flags_unsaid(spec: ModelSpec, *, of_a_table: bool) -> str:
    """All flags needed for facts that a file does not state, so that one refusal names them together."""
    classes = "" if spec.classes is not None or spec.task == "regression" else " --classes a,b"
    columns = "" if spec.features is not None or not of_a_table else ", and of a table --features a,b in their order"
    return classes + columns
