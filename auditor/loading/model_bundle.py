"""The model bundle ``auditor-model/1``: weights and plain data under a closed schema; no code in it runs."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from torch import Tensor, nn

from auditor.core.errors import DamagedError, ModelError, UnsupportedError, UsageError, did_you_mean
from auditor.core.files import Closed
from auditor.core.number_types import Share
from auditor.data.media_classes import Meaning
from auditor.data.preprocessing import (
    AudioPreprocessing,
    ImagePreprocessing,
    Preprocessing,
    TabularPreprocessing,
    TextPreprocessing,
)
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_of
from auditor.loading.huggingface_folders import load_folder
from auditor.loading.job_specs import ModelSpec
from auditor.loading.onnx_models import load_onnx_media
from auditor.loading.user_code import import_object, keywords_of
from auditor.loading.user_functions import load_function
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.detector import ENCLOSED, ONNX_FILE, ClassifierDetector, DeepfakeDetector, Detector, Enclosed
from auditor.models.detector_card import DetectorCard
from auditor.models.files.model_bytes import Source, printable, read_source
from auditor.models.files.strict_zip import Archive
from auditor.models.files.weight_files import unread_records
from auditor.models.files.weights import (
    LOADED_BY_TORCH,
    as_state_dict,
    compare_shapes,
    load_torch,
    plain_floats,
)
from auditor.models.format_names import BUNDLE_FORMAT, RULES_FILE
from auditor.models.gated_model import Gate, GatedModel
from auditor.models.networks.architectures import ARCHITECTURES, RETIRED
from auditor.models.networks.detector_networks import HeadOnFeatures
from auditor.models.output_kind import Outputs
from auditor.models.postprocessed_folder import MAX_RULES_BYTES, PostprocessedRecord, put_around
from auditor.models.postprocessing import PostprocessedModel, Postprocessing
from auditor.models.regression_model import TorchRegressor
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import TorchModel


def load_postprocessed(path: str, spec: ModelSpec, load: Callable[[ModelSpec], AuditedModel]) -> AuditedModel:
    """The model of such a folder; ``load`` reads the base model.

    Raises DamagedError for rules that are not what the format says or another model below them, UsageError for a
    flag that contradicts them.
    """
    source, name = read_source(Path(path) / RULES_FILE, max_bytes=MAX_RULES_BYTES), Path(path).resolve().name
    try:
        record = PostprocessedRecord.model_validate_json(source.data)
    except ValidationError as error:
        raise DamagedError(f"The {RULES_FILE} in {name!r} is not valid: {first_problem(error)}.") from None
    below = _spec_below(record, path, spec, name)
    files = [(member.model, member.sha256) for member in record.members]
    models = [load(replace(below, path=str(Path(path) / file))) for file, _ in files] or [load(below)]
    expected: list[str | None] = [digest for _, digest in files] or [record.sha256]
    if record.function is None and [model.provenance.sha256 for model in models] != expected:
        raise DamagedError(f"The model in {name!r} is not the one that its rules were made for.")
    try:
        return put_around(models, record, path, source.sha256, len(source.data))
    except ModelError as error:
        raise DamagedError(f"{name!r} cannot be used: {error}") from None


def _spec_below(record: PostprocessedRecord, path: str, spec: ModelSpec, name: str) -> ModelSpec:
    """The flags of the model below: what the folder says of it, and those that let code run, which it cannot say."""
    if (record.function is None) != (spec.predict is None):
        raise UsageError(
            f"{name!r} brings its own model: leave --predict out."
            if record.function is None
            else f"{name!r} holds rules over a function of yours: add --predict {printable(record.function, 200)}."
        )
    for flag in ("features", "classes", "outputs"):
        given, known = getattr(spec, flag), getattr(record, flag)
        if given is not None and known is not None and given != known:
            raise UsageError(f"{name!r} says its own {flag}: leave --{flag} out.")
    if record.postprocessing is not None and record.postprocessing.decides and spec.threshold is not None:
        raise UsageError(f"{name!r} decides by thresholds of its own for each group: leave --threshold out.")
    below = None if record.function is not None else path if record.model is None else str(Path(path) / record.model)
    return replace(
        spec,
        path=below,
        features=record.features or spec.features,
        classes=record.classes or spec.classes,
        outputs=record.outputs or spec.outputs,
        threshold=record.threshold if spec.threshold is None else spec.threshold,
    )


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,199}")


def load_enclosed(
    files: Mapping[str, Tensor], record: Enclosed, card: DetectorCard, source: Source, spec: ModelSpec
) -> ClassifierDetector:
    """The detector. Raises DamagedError where the files are not those it was calibrated with, UsageError for a function
    that is not named again."""
    below = replace(spec, path=None, predict=None, classes=record.classes, outputs=record.outputs)
    if record.form == "callable":
        base = _function(record, replace(below, predict=spec.predict), source.name)
    else:
        base = _of_files(files, record, below, source.name)
    if record.form != "callable" and base.provenance.sha256 != record.sha256:
        raise DamagedError(f"The model in {source.name!r} is not the one that its card was made for.")
    base.provenance = replace(base.provenance, path=source.path, sha256=source.sha256, size_bytes=len(source.data))
    try:
        made = ClassifierDetector(base, record.meanings, card)
    except ModelError as error:
        raise DamagedError(f"{source.name!r} cannot be used: {error}") from None
    made.enclosed = {
        "architecture": {"name": ENCLOSED, "args": {}},
        "state_dict": dict(files),
        "classes": list(base.classes),
        ENCLOSED: record.model_dump(mode="json"),
    }
    return made


def _function(record: Enclosed, spec: ModelSpec, name: str) -> AuditedModel:
    if record.function is None or spec.predict != record.function:
        raise UsageError(
            f"{name!r} holds a card of a function of yours, and of no other: add --predict "
            f"{printable(record.function, 200)}, or calibrate another with auditor detect calibrate."
        )
    base = load_function(spec)
    if base.said is not None and base.said.code_sha256 != record.sha256:
        raise UsageError(
            f"The code of {printable(record.function, 200)} is not what it was when {name!r} was calibrated, and what "
            "was measured then says nothing of it: calibrate it anew with auditor detect calibrate."
        )
    return base


def _of_files(files: Mapping[str, Tensor], record: Enclosed, spec: ModelSpec, name: str) -> AuditedModel:
    with tempfile.TemporaryDirectory(prefix="enclosed.") as folder:
        for file, content in files.items():
            if not _NAME.fullmatch(file) or content.dtype != torch.uint8 or content.ndim != 1:
                raise DamagedError(f"{name!r} encloses {printable(file, 60)!r}, which is no file of a model.")
            (Path(folder) / file).write_bytes(content.numpy().tobytes())
        if record.form == "ONNX model":
            return load_onnx_media(str(Path(folder) / ONNX_FILE), spec)
        loaded = load_folder(folder, spec)
        return loaded


_MAX_NUMBER = 1 << 24
_MAX_LAYERS = 512
_MAX_LIST = 64
_MAX_EPOCHS = 100_000
_PREPROCESSING: TypeAdapter[Preprocessing | None] = TypeAdapter(Preprocessing | None)
_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
_DETECTOR: TypeAdapter[DetectorCard] = TypeAdapter(DetectorCard)
_MEANINGS: TypeAdapter[tuple[Meaning, ...]] = TypeAdapter(tuple[Meaning, ...])
_ENCLOSED: TypeAdapter[Enclosed] = TypeAdapter(Enclosed)
_GATE: TypeAdapter[Gate] = TypeAdapter(Gate)
_POSTPROCESSING: TypeAdapter[Postprocessing] = TypeAdapter(Postprocessing)


class _Architecture(Closed):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    args: dict[str, Any] = {}


class _Bundle(Closed):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    format: str
    architecture: _Architecture
    state_dict: dict[str, Tensor]
    preprocessing: Any = None
    postprocessing: Any = None
    detector: Any = None
    meanings: Any = None
    enclosed: Any = None
    gate: Any = None
    classes: Annotated[list[str], Field(max_length=1_000_000)] = []
    training: Any = None
    task: Literal["classification", "regression"] = "classification"
    outputs: Outputs | None = None
    outputs_stated: bool = False
    threshold: Share = 0.5

    @model_validator(mode="after")
    def _classes_of_a_classifier(self) -> Self:
        if self.task == "regression" and self.classes:
            raise ValueError("a regression has no classes")
        if self.task == "regression" and self.postprocessing is not None:
            raise ValueError("a regression has no decisions to post-process")
        if self.detector is not None and (self.task == "regression" or self.postprocessing is not None):
            raise ValueError("a detector is a classifier whose answers nothing else changes")
        if self.gate is not None and (self.task == "regression" or self.postprocessing or self.detector):
            raise ValueError("a gate stands before a classifier whose answers nothing else changes")
        if self.task == "classification" and len(self.classes) < 2:
            raise ValueError("a classifier names at least two classes")
        return self


def load_bundle(
    source: Source, archive: Archive, record: str, spec: ModelSpec
) -> TorchModel | TorchRegressor | PostprocessedModel | GatedModel | ClassifierDetector:
    """The model of a bundle. Raises ModelError for any part that is not what the format says."""
    bundle = _parse(load_torch(source, archive, record), source.name)
    if bundle.enclosed is not None:
        return _load_enclosed_detector(bundle, source, spec)
    model = _model_of(bundle, source, spec, unread_records(archive, record))
    return model if bundle.gate is None else _gated(model, bundle.gate, source, spec)


def asks_a_function(source: Source, archive: Archive, record: str) -> bool:
    """Whether the detector of a bundle or of its gate is a user's function; raises the errors of loading it."""
    bundle = _parse(load_torch(source, archive, record), source.name)
    gate = bundle.gate if isinstance(bundle.gate, Mapping) else {}
    nested = gate.get("detector")
    enclosed = [bundle.enclosed, nested.get(ENCLOSED) if isinstance(nested, Mapping) else None]
    return any(isinstance(one, Mapping) and one.get("form") == "callable" for one in enclosed)


def _model_of(
    bundle: _Bundle, source: Source, spec: ModelSpec, unread: tuple[str, ...] = ()
) -> TorchModel | TorchRegressor | PostprocessedModel | ClassifierDetector:
    """The model of a bundle without what stands before it."""
    weights = as_state_dict(bundle.state_dict, source.name)
    name, args = bundle.architecture.name, dict(bundle.architecture.args)
    chosen = spec.architecture or name
    if chosen in ARCHITECTURES:
        module, notes = build_known(chosen, args | spec.architecture_args, weights, source.name)
    elif spec.architecture is not None:
        module, notes = build_own(spec, args, weights, source.name)
    elif name in RETIRED:
        raise ModelError(
            f"{source.name!r} is a detector of a kind that earlier versions trained ({name}): train one anew with "
            "auditor detect train.",
            code="AUD-LOAD-ARCHITECTURE",
        )
    else:
        raise ModelError(
            f"{source.name!r} is a bundle of the network {printable(name, 60)!r}, which is none of "
            f"{', '.join(ARCHITECTURES)}: name its class with --architecture package.module:{_class_name(name)}.",
            code="AUD-LOAD-ARCHITECTURE",
        )
    preprocessing: Preprocessing | None = _checked(_PREPROCESSING, bundle.preprocessing, "preprocessing", source.name)
    _check_fit(preprocessing, args, source.name)
    provenance = provenance_of(source, BUNDLE_FORMAT, LOADED_BY_TORCH, (*unread, *notes))
    if bundle.task == "regression":
        no_flags_of_classes(spec)
        return TorchRegressor(
            module,
            preprocessing=preprocessing,
            features=spec.features,
            device=spec.device,
            architecture={"name": name, "args": args},
            recipe=_recipe(bundle.training, source.name),
            provenance=provenance,
        )
    model = TorchModel(
        module,
        classes=named_classes(bundle.classes, spec),
        preprocessing=preprocessing,
        features=spec.features,
        outputs=spec.outputs or _outputs(bundle),
        threshold=bundle.threshold if spec.threshold is None else spec.threshold,
        device=spec.device,
        architecture={"name": name, "args": args},
        recipe=_recipe(bundle.training, source.name),
        provenance=provenance,
    )
    if bundle.detector is not None:
        card: DetectorCard = _checked(_DETECTOR, bundle.detector, "detector", source.name)
        if bundle.meanings is None:
            return _detector(model, card, source.name)
        return ClassifierDetector(model, _checked(_MEANINGS, bundle.meanings, "meanings", source.name), card)
    return model if bundle.postprocessing is None else _postprocessed(model, bundle.postprocessing, spec, source.name)


def _outputs(bundle: _Bundle) -> Outputs | None:
    """What the bundle says of its network's outputs. Logits without ``outputs_stated`` were said by nobody: it is what
    bundles were once written with where the maker was silent."""
    return bundle.outputs if bundle.outputs_stated or bundle.outputs == "probabilities" else None


def _detector(model: TorchModel, card: DetectorCard, file_name: str) -> DeepfakeDetector:
    """The model with its card. Raises ModelError where the two contradict each other or the network fails on a blank.

    A network is tried before anything is asked of it, so that what cannot work is said once and not of every file.
    """
    detector = DeepfakeDetector.around(model, card)
    blank = _blank(detector.preprocessing)
    if blank is None:
        raise DamagedError(
            f"{file_name!r} is not a valid model bundle: its detector says nothing of how files are read."
        )
    try:
        with without_gradients(), detector.evaluating():
            detector.logits(detector.encode(blank))
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(
            f"{file_name!r} is not a valid model bundle: its network cannot take what its preprocessing makes of a "
            f"file: "
            f"{printable(error)}."
        ) from error
    return detector


def _blank(preprocessing: Preprocessing | None) -> npt.NDArray[Any] | None:
    """One row of nothing: a black picture, (1, height, width, channels), or silence, (1, samples)."""
    if isinstance(preprocessing, ImagePreprocessing):
        return np.zeros((1, *preprocessing.size, len(preprocessing.mean)), np.uint8)
    if isinstance(preprocessing, AudioPreprocessing):
        return np.zeros((1, preprocessing.samples), np.int16)
    return None


def _gated(model: AuditedModel, value: object, source: Source, spec: ModelSpec) -> GatedModel:
    """The model behind its gate, whose detector is a whole bundle within this one."""
    parts = dict(value) if isinstance(value, Mapping) else {}
    nested = parts.pop("detector", None)
    gate: Gate = _checked(_GATE, parts, "gate", source.name)
    bundle = _parse(nested, f"{source.name}: the gate's detector")
    own = ModelSpec(device=spec.device, predict=spec.predict, code_folder=spec.code_folder)
    if bundle.enclosed is not None:
        detector: AuditedModel | None = _load_enclosed_detector(bundle, source, own)
    else:
        detector = None if bundle.gate is not None else _model_of(bundle, source, own)
    if not isinstance(detector, Detector) or not isinstance(model, TorchModel):
        raise DamagedError(f"{source.name!r} is not a valid model bundle: its gate has no detector of its own.")
    return GatedModel(model, detector, gate)


def _load_enclosed_detector(bundle: _Bundle, source: Source, spec: ModelSpec) -> ClassifierDetector:
    """The detector whose classifier is no network of ours."""
    card: DetectorCard = _checked(_DETECTOR, bundle.detector, "detector", source.name)
    record: Enclosed = _checked(_ENCLOSED, bundle.enclosed, "enclosed", source.name)
    return load_enclosed(bundle.state_dict, record, card, source, spec)


def _postprocessed(model: TorchModel, value: object, spec: ModelSpec, file_name: str) -> PostprocessedModel:
    rules: Postprocessing = _checked(_POSTPROCESSING, value, "postprocessing", file_name)
    if rules.decides and spec.threshold is not None:
        raise UsageError(f"{file_name!r} decides by thresholds of its own for each group: leave --threshold out.")
    return PostprocessedModel(
        model, rules, provenance=replace(model.provenance, notes=(*model.provenance.notes, rules.describe()))
    )


def _parse(loaded: object, file_name: str) -> _Bundle:
    form = loaded.get("format") if isinstance(loaded, Mapping) else None
    if not isinstance(loaded, Mapping) or not isinstance(form, str):
        raise DamagedError(f"{file_name!r} is not a model bundle: it names no format.")
    if form != BUNDLE_FORMAT:
        raise UnsupportedError(
            f"{file_name!r} is a bundle of the format {printable(form, 40)!r}, and this version reads "
            f"{BUNDLE_FORMAT!r}: "
            "upgrade responsible-auditor, or save the model again with this one."
        )
    try:
        return _Bundle.model_validate(dict(loaded))
    except ValidationError as error:
        raise DamagedError(f"{file_name!r} is not a valid model bundle: {first_problem(error)}.") from None


def _checked(adapter: TypeAdapter[Any], value: object, part: str, file_name: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise DamagedError(f"{file_name!r} is not a valid model bundle: {part}: {first_problem(error)}.") from None


def _check_fit(preprocessing: Preprocessing | None, args: Mapping[str, Any], file_name: str) -> None:
    """Raises ModelError where the encoded input cannot be what the network was built for."""
    if isinstance(preprocessing, TabularPreprocessing):
        made, key = preprocessing.width, "n_features"
    elif isinstance(preprocessing, TextPreprocessing):
        indices = [0, preprocessing.unknown or 0, *preprocessing.vocabulary.values()]
        made, key = max(indices) + 1, "n_words"
        if min(indices) < 0:
            raise DamagedError(f"{file_name!r} is not a valid model bundle: its vocabulary holds a negative index.")
    elif isinstance(preprocessing, ImagePreprocessing):
        made, key = len(preprocessing.mean), "channels"
        if len(preprocessing.std) != made:
            raise DamagedError(f"{file_name!r} is not a valid model bundle: its mean and std differ in length.")
    elif isinstance(preprocessing, AudioPreprocessing):
        made, key = preprocessing.sampling_rate, "sampling_rate"
    else:
        return
    taken = args.get(key, made)
    if made > taken if key == "n_words" else made != taken:
        raise DamagedError(
            f"{file_name!r} is not a valid model bundle: its preprocessing makes {key} {made}, its network takes "
            f"{taken}."
        )


def _recipe(value: object, file_name: str) -> Recipe | None:
    if value is None:
        return None
    known = [f.name for f in fields(Recipe)]
    for key in value if isinstance(value, dict) else ():
        if key not in known:
            raise DamagedError(
                f"{file_name!r} is not a valid model bundle: training: unknown key {printable(key, 40)!r}."
            )
    recipe: Recipe = _checked(_RECIPE, value, "training", file_name)
    numbers = [v for k, v in vars(recipe).items() if isinstance(v, (int, float)) and k != "seed"]
    # Shadow models are trained by this recipe: it may not be what keeps a machine busy forever.
    if not all(0 <= n <= _MAX_NUMBER for n in numbers) or recipe.epochs > _MAX_EPOCHS:
        raise DamagedError(
            f"{file_name!r} is not a valid model bundle: training: a number is negative, not finite or too large."
        )
    return recipe


def first_problem(error: ValidationError) -> str:
    """The first schema violation, safe for printing."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": "), 200)


def _class_name(name: str) -> str:
    return name if name.isidentifier() else "Class"


def build_known(
    name: str, args: Mapping[str, Any], weights: Mapping[str, Tensor], file_name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """A network of ARCHITECTURES with these weights, and notes.

    It is first built without memory and its shapes compared, so that no argument can make it larger than its weights.
    Raises ModelError for arguments that are not plain numbers of a sane size, and for weights that do not fit.
    """
    factory = ARCHITECTURES[name]
    _check_arguments(name, args, file_name)
    try:
        with torch.device("meta"):
            module = factory(**args)
    except Exception as error:
        raise ModelError(
            f"{file_name!r}: the network {name!r} cannot be built with {_arguments_text(args)}: {printable(error)}.",
            code="AUD-LOAD-ARCHITECTURE",
        ) from error
    if isinstance(module, HeadOnFeatures):
        # Earlier versions measured how unlike its training files a file is.
        weights = {key: value for key, value in weights.items() if not key.startswith("rule.")}
    compare_shapes(module.state_dict(), weights, file_name, f"the network {name!r}")
    copies, notes = plain_floats(weights)
    module.load_state_dict(copies, assign=True)
    return module.eval(), notes


def _check_arguments(name: str, args: Mapping[str, Any], file_name: str) -> None:
    parameters = inspect.signature(ARCHITECTURES[name]).parameters
    usage = f"it takes {', '.join(parameters)}"
    for key in args:
        if key not in parameters:
            raise ModelError(
                f"{file_name!r}: the network {name!r} has no argument {printable(key, 40)!r}"
                f"{did_you_mean(key, parameters)}; {usage}.",
                code="AUD-LOAD-ARCHITECTURE",
            )
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in args]
    if missing:
        raise ModelError(
            f"{file_name!r}: the network {name!r} needs {', '.join(missing)}: give --architecture-args as JSON; "
            f"{usage}.",
            code="AUD-LOAD-ARCHITECTURE",
        )
    for key, value in args.items():
        if not (
            _is_plain(value)
            or (isinstance(value, (list, tuple)) and len(value) <= _MAX_LIST and all(map(_is_plain, value)))
        ):
            raise ModelError(
                f"{file_name!r}: the argument {key!r} of {name!r} must be a number up to {_MAX_NUMBER:,}, or a list of "
                f"up "
                f"to {_MAX_LIST} of them.",
                code="AUD-LOAD-ARCHITECTURE",
            )
    # Layers cost time to build even without memory; everything else is bounded by the weights that must fit.
    layers = args.get("n_layers", 1)
    if _is_plain(layers) and layers > _MAX_LAYERS:
        raise ModelError(
            f"{file_name!r}: the network {name!r} is asked for more than {_MAX_LAYERS} layers.", code="AUD-LOAD-LIMIT"
        )


def _is_plain(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _MAX_NUMBER


def _arguments_text(args: Mapping[str, Any]) -> str:
    return printable(", ".join(f"{k}={v}" for k, v in args.items()), 120) or "no arguments"


def build_own(
    spec: ModelSpec, args: Mapping[str, Any], weights: Mapping[str, Tensor], file_name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """The user's own network with these weights, and notes.

    Raises UsageError where it cannot be built, ModelError where the weights do not fit.
    """
    if spec.architecture is None:
        raise UsageError("Name the network's class with --architecture package.module:Class.")
    factory = import_object(spec.architecture, spec.code_folder, "--architecture")
    arguments = keywords_of(factory, args, spec.architecture_args)
    try:
        module = factory(**arguments)
    except Exception as error:
        raise UsageError(
            f"--architecture {spec.architecture} cannot be called with {_arguments_text(arguments)}: "
            f"{printable(error)}. Its arguments are given as JSON by --architecture-args."
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"--architecture {spec.architecture} makes a {type(module).__name__}, not a torch module.")
    compare_shapes(module.state_dict(), weights, file_name, spec.architecture)
    copies, notes = plain_floats(weights)
    module.load_state_dict(copies)
    return module.float(), (*notes, f"The network is the user's own code, {spec.architecture}.")
