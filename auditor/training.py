"""Training a torch classifier from a table: one loop, seeded throughout, private by DP-SGD where asked for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import torch
from torch import Tensor, nn

from auditor.architectures import ARCHITECTURES
from auditor.arrays import IntArray
from auditor.data import encode_labels, favourable, id_like
from auditor.errors import DataError, ModelError, UsageError
from auditor.files import write_beside
from auditor.intake.user_code import import_object, keywords_of
from auditor.model import Recipe, TorchModel
from auditor.preprocessing import CategoricalColumn, TabularPreprocessing, fit_tabular, label_name
from auditor.randomness import seeded_globals
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.ranks import area_under_curve
from auditor.statistics.rates import Proportion
from auditor.suggest import did_you_mean
from auditor.tables import TableFile, open_table

FEWEST_ROWS = 20
MOST_LEVELS = 5_000
VALIDATION_SHARE = 0.15
FEWEST_VALIDATION_ROWS = 20
PATIENCE = 10

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """What to train, on what, and how; the command line's ``train`` flags, one field each.

    ``features``: None means every column but the target, ``drop`` and columns that name rows. ``epochs``: the most that
    early stopping may use, and the exact number under ``dp_epsilon``. ``architecture``: ``mlp``, or
    ``package.module:Class`` of the user's own, found on the import path or in ``code_folder``. ``dp_delta``: None means
    ``n^-1.1`` of the n training rows. ``dp_noise_seed``: None draws it from the operating system and keeps it nowhere;
    whoever knows it can take the noise out again, so it is for tests.
    """

    data: str
    target: str
    positive: str | None = None
    features: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    test_share: float = 0.3
    epochs: int = 50
    hidden: tuple[int, ...] = (64, 32)
    learning_rate: float = 1e-3
    batch_size: int = 128
    seed: int = 0
    device: str = "auto"
    architecture: str = "mlp"
    architecture_args: Mapping[str, Any] = field(default_factory=dict)
    code_folder: str | None = None
    dp_epsilon: float | None = None
    dp_delta: float | None = None
    dp_noise_seed: int | None = None
    max_grad_norm: float = 1.0


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedModel:
    """A trained model, the rows it was and was not trained on, and how well it does on the latter.

    ``train``, ``test``: the rows, unencoded, with the target and every other column that is kept. ``train_rows``,
    ``test_rows``: their positions in the file, ascending. ``accuracy``, ``auc`` (binary only): on the test rows.
    ``majority_share``: accuracy on the test rows of always guessing the commonest training class. ``notes``: what was
    done that a reader must know.
    """

    model: TorchModel
    train: pd.DataFrame
    test: pd.DataFrame
    train_rows: IntArray
    test_rows: IntArray
    left_out: tuple[str, ...]
    accuracy: Proportion
    auc: AnyEstimate | None
    majority_share: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Labelled:
    """Rows of a table that have a label: ``frame`` (n, columns), ``y`` (n,), ``rows`` (n,) positions in the file."""

    frame: pd.DataFrame
    y: IntArray
    rows: IntArray
    classes: tuple[str, ...]
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Encoded rows on the device: ``x`` (n, width) float32, ``y`` (n,) int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: IntArray) -> _Encoded:
        where = torch.from_numpy(index).to(self.x.device)
        return _Encoded(self.x[where], self.y[where])


@dataclass(frozen=True)
class _Seeds:
    """Independent seeds of the parts of one training run."""

    split: int
    initialisation: int
    batches: int

    @classmethod
    def of(cls, seed: int) -> _Seeds:
        return cls(*(int(s) for s in np.random.SeedSequence(seed).generate_state(3, np.uint64)))


def train_table(spec: TrainSpec, progress: Progress | None = None) -> TrainedModel:
    """Trains a classifier on a table and measures it on the rows held back.

    The labelled rows are split by class; the encoding is fitted on the training rows; Adam minimises the cross-entropy.
    Without ``dp_epsilon`` the number of epochs is chosen by early stopping on 15 % of the training rows, and the model
    is then trained anew, from the same start, on all of them for that number of epochs, so that every training row is
    equally a member (Goodfellow et al., Deep Learning, 2016, algorithm 7.2). With it, by DP-SGD for exactly ``epochs``.
    The caller's random states of torch, numpy and random are left as they were; the same seed gives the same weights.

    Raises UsageError, DataError or ModelError before training where something asked for cannot be done.
    """
    _check(spec)
    say = progress or (lambda _: None)
    device = resolve_device(spec.device)
    say("reading the table")
    table = _read(spec)
    seeds = _Seeds.of(spec.seed)
    train, test = stratified_split(table.y, spec.test_share, np.random.default_rng(seeds.split))
    positive = favourable(spec.positive, table.classes)
    X = table.frame[list(table.features)]
    preprocessing = _fit_preprocessing(X.iloc[train])
    rows = _Encoded(
        torch.from_numpy(_encode(preprocessing, X.iloc[train])).to(device),
        torch.from_numpy(table.y[train]).to(device),
    )
    recipe = Recipe(
        learning_rate=spec.learning_rate,
        epochs=spec.epochs,
        batch_size=min(spec.batch_size, len(rows)),
        seed=spec.seed,
    )
    make = _Factory(spec, preprocessing, table.classes, device, seeds.initialisation)
    _try_forward(make(recipe), rows)
    if spec.dp_epsilon is None:
        model, how = _fit_with_early_stopping(make, rows, recipe, seeds, say)
    else:
        model, how = _fit_privately(make, rows, recipe, spec, say)
    model.module.eval()
    held = table.frame.iloc[test].reset_index(drop=True)
    probabilities = model.predict_proba(held[list(table.features)])
    y_test = table.y[test]
    commonest = int(np.bincount(table.y[train]).argmax())
    correct = model.decide(probabilities, positive) == y_test
    split = (
        f"{len(train):,} training and {len(test):,} test rows, drawn by class with seed {spec.seed} "
        f"(test share {spec.test_share:g})."
    )
    return TrainedModel(
        model=model,
        train=table.frame.iloc[train].reset_index(drop=True),
        test=held,
        train_rows=table.rows[train],
        test_rows=table.rows[test],
        left_out=table.left_out,
        accuracy=Proportion(successes=int(correct.sum()), n=len(test)),
        auc=_auc(probabilities, y_test, 1 if positive is None else positive) if len(table.classes) == 2 else None,
        majority_share=float((y_test == commonest).mean()),
        notes=(*table.notes, split, *how),
    )


def _auc(probabilities: np.ndarray[Any, np.dtype[np.float64]], y: IntArray, positive: int) -> AnyEstimate:
    scores = probabilities[:, positive]
    return area_under_curve(scores[y == positive], scores[y != positive])


def _check(spec: TrainSpec) -> None:
    if not 0.0 < spec.test_share < 1.0:
        raise UsageError(f"--test-share must lie between 0 and 1, not {spec.test_share:g}.")
    for flag, number in (("--epochs", spec.epochs), ("--batch-size", spec.batch_size)):
        if number < 1:
            raise UsageError(f"{flag} must be at least 1, not {number}.")
    if not (math.isfinite(spec.learning_rate) and spec.learning_rate > 0):
        raise UsageError(f"--learning-rate must be a positive number, not {spec.learning_rate:g}.")
    if any(units < 1 for units in spec.hidden):
        raise UsageError("--hidden must be positive numbers, such as 64,32.")
    if spec.seed < 0:
        raise UsageError(f"--seed must be 0 or more, not {spec.seed}.")
    if spec.dp_epsilon is None:
        if spec.dp_delta is not None or spec.dp_noise_seed is not None:
            raise UsageError("--dp-delta and --dp-noise-seed say how to train privately: add --dp-epsilon E.")
        return
    if not (math.isfinite(spec.dp_epsilon) and spec.dp_epsilon > 0):
        raise UsageError(f"--dp-epsilon must be a positive number, not {spec.dp_epsilon:g}.")
    if not (math.isfinite(spec.max_grad_norm) and spec.max_grad_norm > 0):
        raise UsageError(f"--max-grad-norm must be a positive number, not {spec.max_grad_norm:g}.")


def resolve_device(name: str) -> torch.device:
    """The device of a name, ``auto`` being a GPU where there is one. Raises UsageError where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name!r} cannot be used here: {str(error).splitlines()[0][:200]}") from None
    return device


# ---- the rows ------------------------------------------------------------------------------------------------------


def _read(spec: TrainSpec) -> _Labelled:
    file = open_table(spec.data)
    file.require([spec.target, *spec.drop, *(spec.features or ())])
    candidates = _candidates(file, spec)
    frame = _typed_frame(file, spec.target)
    if len(frame) < FEWEST_ROWS:
        raise DataError(f"{file.path.name} has {len(frame)} rows; training and testing need at least {FEWEST_ROWS}.")
    notes = []
    left_out: list[str] = []
    if spec.features is None:
        left_out = id_like(frame[candidates])
        if left_out:
            notes.append(f"Columns that name rows were left out: {', '.join(left_out)}.")
    features = [name for name in candidates if name not in left_out]
    if not features:
        raise UsageError(f"No column of {file.path.name} is left to learn from.")
    frame = frame.drop(columns=left_out)
    labelled = frame[spec.target].notna().to_numpy()
    if not labelled.all():
        notes.append(f"{int((~labelled).sum()):,} rows without a label were left out.")
    frame = frame[labelled]
    if len(frame) < FEWEST_ROWS:
        raise DataError(
            f"Column {spec.target!r} has a label in {len(frame)} rows; "
            f"training and testing need at least {FEWEST_ROWS}."
        )
    classes = _classes(frame[spec.target], spec.target)
    favourable(spec.positive, classes)
    return _Labelled(
        frame=frame.reset_index(drop=True),
        y=encode_labels(frame[spec.target], classes, spec.target),
        rows=np.flatnonzero(labelled).astype(np.int64),
        classes=classes,
        features=tuple(features),
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _candidates(file: TableFile, spec: TrainSpec) -> list[str]:
    if spec.target in (spec.features or ()):
        raise UsageError(f"--features names the target {spec.target!r}: a model must not see what it is to predict.")
    if spec.target in spec.drop:
        raise UsageError(f"--drop names the target {spec.target!r}.")
    both = [name for name in spec.features or () if name in spec.drop]
    if both:
        raise UsageError(f"{both[0]!r} is named by --features and by --drop.")
    if spec.features is not None:
        return list(dict.fromkeys(spec.features))
    return [name for name in file.columns if name != spec.target and name not in spec.drop]


def _typed_frame(file: TableFile, target: str) -> pd.DataFrame:
    """All columns: numbers as numbers, everything else as the text in the file, the target as text.

    Dates and booleans are read as text because that is how a scan reads the columns of a bundle that are no numbers;
    one spelling on both sides is what makes a level known again.
    """
    types: dict[str, pa.DataType] = {target: pa.string()}
    inferred = file.read(file.columns, types)
    for column in inferred.schema:
        if pa.types.is_decimal(column.type):
            types[column.name] = pa.float64()
        elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            types[column.name] = pa.string()
    if any(inferred.schema.field(name).type != kind for name, kind in types.items()):
        inferred = file.read(file.columns, types)
    frame: pd.DataFrame = inferred.to_pandas()
    return frame


def _classes(labels: pd.Series[str], target: str) -> tuple[str, ...]:
    counts = labels.map({label: label_name(label) for label in labels.unique()}).value_counts()
    names = [str(name) for name in counts.index]
    if len(names) < 2:
        raise DataError(f"Column {target!r} holds one class only ({names[0]}): there is nothing to tell apart.")
    rarest = str(counts.index[-1])
    if counts.iloc[-1] < 2:
        raise DataError(
            f"Column {target!r} holds {len(names):,} different labels, and {rarest[:40]!r} stands in one row only: "
            "a classifier needs classes of at least 2 rows, one to train and one to test on."
        )
    try:
        return tuple(sorted(names, key=float))
    except ValueError:
        return tuple(sorted(names))


def stratified_split(y: IntArray, share: float, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Positions of the rows that stay and of the rows held back, both ascending.

    From each class of n_c rows, ``round(share * n_c)`` are held back, at least one and at most n_c - 1 where n_c > 1.
    """
    held = np.zeros(len(y), bool)
    for label in np.unique(y):
        own = np.flatnonzero(y == label)
        wanted = min(max(round(share * own.size), 1), own.size - 1)
        held[rng.permutation(own)[:wanted]] = True
    return np.flatnonzero(~held).astype(np.int64), np.flatnonzero(held).astype(np.int64)


def _fit_preprocessing(X: pd.DataFrame) -> TabularPreprocessing:
    preprocessing = fit_tabular(X)
    for column in preprocessing.columns:
        if isinstance(column, CategoricalColumn) and len(column.levels) > MOST_LEVELS:
            raise DataError(
                f"The feature {column.name!r} has {len(column.levels):,} different texts, too many to be levels: "
                f"leave it out with --drop."
            )
    return preprocessing


def _encode(preprocessing: TabularPreprocessing, X: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
    encoded = preprocessing.encode(X)
    for column, span in zip(preprocessing.columns, preprocessing.spans, strict=True):
        if not np.isfinite(encoded[:, span]).all():
            raise DataError(f"The feature {column.name!r} holds infinity: correct it, or leave it out with --drop.")
    return encoded


def write_rows(path: str | Path, data: str, rows: IntArray, left_out: tuple[str, ...] = ()) -> None:
    """Writes some rows of a table, unencoded, without the columns ``left_out``; text of a CSV file stays verbatim.

    The kind follows from the suffix of ``path``: .csv, .tsv, .parquet or .pq. Raises UsageError for another.
    """
    where = Path(path)
    kind = split_kind(where)
    file = open_table(data)
    columns = [name for name in file.columns if name not in left_out]
    # 007 must not become 7, nor 1.10 become 1.1, on the way from one text file to another.
    verbatim = {name: pa.string() for name in columns} if file.kind in ("csv", "tsv") and kind != "parquet" else {}
    table = file.read(columns, verbatim).take(pa.array(rows))
    if kind == "parquet":
        buffer = BytesIO()
        pyarrow.parquet.write_table(table, buffer)
        write_beside(where, buffer.getvalue())
        return
    try:
        text = table.cast(pa.schema([pa.field(name, pa.string()) for name in columns]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(
            f"{where.name} cannot hold the columns of {file.path.name} ({str(error).splitlines()[0][:120]}): "
            "name a .parquet file instead."
        ) from None
    content = text.to_pandas().to_csv(index=False, sep="\t" if kind == "tsv" else ",", lineterminator="\n")
    write_beside(where, content.encode())


def split_kind(path: Path) -> str:
    """``csv``, ``tsv`` or ``parquet`` by suffix; raises UsageError for another."""
    kind = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".pq": "parquet"}.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path.name!r} must end in .csv, .tsv or .parquet.")
    return kind


# ---- the network ---------------------------------------------------------------------------------------------------


def _seeded(seed: int) -> AbstractContextManager[None]:
    """The global generators that initialisation, dropout and the user's own layers draw from, lent for a block."""
    return seeded_globals(np.random.default_rng(seed))


class _Factory:
    """Makes the untrained model, the same one each time it is called."""

    def __init__(
        self,
        spec: TrainSpec,
        preprocessing: TabularPreprocessing,
        classes: tuple[str, ...],
        device: torch.device,
        seed: int,
    ) -> None:
        self.preprocessing = preprocessing
        self.classes = classes
        self.device = device
        self.seed = seed
        self.kind, self.args = _architecture(spec, preprocessing.width, len(classes))
        self.name = spec.architecture

    def __call__(self, recipe: Recipe) -> TorchModel:
        with _seeded(self.seed):
            try:
                module = self.kind(**self.args)
            except Exception as error:  # whatever the user's own code raises
                raise UsageError(
                    f"{self.name} cannot be made with the arguments {self.args}: {_one_line(error)}. "
                    "Correct --architecture-args."
                ) from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"--architecture {self.name} makes a {type(module).__name__}, not a torch.nn.Module.")
        if not any(p.requires_grad for p in module.parameters()):
            raise ModelError(f"--architecture {self.name} has no parameter that could be trained.")
        return TorchModel(
            module,
            classes=self.classes,
            preprocessing=self.preprocessing,
            device=self.device,
            architecture={"name": self.name, "args": dict(self.args)},
            recipe=recipe,
        )


def _architecture(spec: TrainSpec, n_features: int, n_outputs: int) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """What makes the module and its arguments; the sizes are passed where the signature takes them."""
    sizes = {"n_features": n_features, "n_outputs": n_outputs}
    if spec.architecture == "mlp":
        return ARCHITECTURES["mlp"], {"hidden": list(spec.hidden), **spec.architecture_args, **sizes}
    if ":" not in spec.architecture:
        near = did_you_mean(spec.architecture, ["mlp"])
        raise UsageError(
            f"--architecture {spec.architecture!r} must be mlp, or package.module:Class of your own{near or '.'}"
        )
    kind = import_object(spec.architecture, spec.code_folder, "--architecture")
    return kind, keywords_of(kind, sizes, spec.architecture_args)


def _try_forward(model: TorchModel, rows: _Encoded) -> None:
    """Two rows through the untrained module, so that a network of the wrong shape is refused before any training."""
    few = rows.x[:2]
    with torch.no_grad(), model.evaluating(), _seeded(0):
        try:
            model.logits(few)
        except ModelError:
            raise
        except Exception as error:  # whatever the user's own code raises
            raise ModelError(
                f"{type(model.module).__name__} cannot take an input of shape {tuple(few.shape)}: {_one_line(error)}."
            ) from error


def _one_line(error: Exception) -> str:
    """The first line of an error, its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else type(error).__name__


# ---- the loop ------------------------------------------------------------------------------------------------------


def _fit_with_early_stopping(
    make: _Factory, rows: _Encoded, recipe: Recipe, seeds: _Seeds, say: Progress
) -> tuple[TorchModel, tuple[str, ...]]:
    y = rows.y.cpu().numpy()
    fit, validation = stratified_split(y, VALIDATION_SHARE, np.random.default_rng([seeds.split, 1]))
    epochs = recipe.epochs
    if len(validation) < FEWEST_VALIDATION_ROWS:
        note = f"Trained for {epochs} epochs; the rows are too few for early stopping."
    else:
        epochs = _best_epoch(make(recipe), rows.take(fit), rows.take(validation), recipe, seeds, say)
        note = (
            f"Trained for {epochs} of at most {recipe.epochs} epochs: chosen by early stopping on {len(validation):,} "
            f"of the training rows (patience {PATIENCE}), then trained anew on all {len(rows):,}."
        )
    recipe = replace(recipe, epochs=epochs)
    model = make(recipe)
    for epoch, loss in enumerate(_epochs(model, rows, recipe, seeds.batches), 1):
        say(f"epoch {epoch} of {epochs}, loss {loss:.4f}")
        if epoch == epochs:
            break
    return model, (note,)


def _best_epoch(
    model: TorchModel, fit: _Encoded, validation: _Encoded, recipe: Recipe, seeds: _Seeds, say: Progress
) -> int:
    """Epochs to the smallest validation loss; the search ends ``PATIENCE`` epochs after it."""
    best, best_loss = 1, math.inf
    for epoch, _ in enumerate(_epochs(model, fit, recipe, seeds.batches), 1):
        with torch.no_grad(), model.evaluating():
            loss = float(nn.functional.cross_entropy(model.logits(validation.x), validation.y))
        if loss < best_loss:
            best, best_loss = epoch, loss
        say(f"early stopping: epoch {epoch} of at most {recipe.epochs}, validation loss {loss:.4f}")
        if epoch == recipe.epochs or epoch - best >= PATIENCE:
            break
    return best


def _epochs(model: TorchModel, rows: _Encoded, recipe: Recipe, seed: int) -> Iterator[float]:
    """Trains one epoch for each mean loss that is taken from it, without end."""
    optimizer = torch.optim.Adam(model.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(seed ^ 1)
    while True:
        model.module.train()
        order = torch.randperm(len(rows), generator=generator).to(rows.x.device)
        state = int(torch.randint(2**62, (1,), generator=draws))
        with _seeded(state):
            loss = _one_epoch(model, rows, order, optimizer, recipe)
        # Outside of the seeded block, which must not stay open while the caller does something else.
        yield loss


def _one_epoch(
    model: TorchModel, rows: _Encoded, order: Tensor, optimizer: torch.optim.Optimizer, recipe: Recipe
) -> float:
    total = torch.zeros((), device=rows.x.device)
    seen = 0
    for batch in torch.split(order, recipe.batch_size):
        # Layers that normalise over the batch refuse a batch of one.
        if len(batch) == 1 and len(order) > 1:
            continue
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model.logits(rows.x[batch]), rows.y[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * len(batch)
        seen += len(batch)
    return _finite(float(total) / seen)


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise ModelError("The loss became infinite or NaN in training: lower --learning-rate.")
    return loss


# ---- DP-SGD --------------------------------------------------------------------------------------------------------

_PRIVATE_LAYERS = {
    "BatchNorm1d": "torch.nn.GroupNorm",
    "BatchNorm2d": "torch.nn.GroupNorm",
    "BatchNorm3d": "torch.nn.GroupNorm",
    "SyncBatchNorm": "torch.nn.GroupNorm",
    "InstanceNorm1d": "the same layer with track_running_stats=False",
    "InstanceNorm2d": "the same layer with track_running_stats=False",
    "InstanceNorm3d": "the same layer with track_running_stats=False",
    "LSTM": "opacus.layers.DPLSTM",
    "GRU": "opacus.layers.DPGRU",
    "RNN": "opacus.layers.DPRNN",
    "MultiheadAttention": "opacus.layers.DPMultiheadAttention",
}


@contextmanager
def _opacus_quietly() -> Iterator[None]:
    """Opacus' standing remarks silenced, each because the notes of the training say it or it says nothing of ours."""
    with warnings.catch_warnings():
        # Said in the notes: the noise is pseudo-random.
        warnings.filterwarnings("ignore", message="Secure RNG turned off")
        # The first layer's input needs no gradient, which is always so where the input is data.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        # The bound that RDP gives is valid at the largest order too, only less tight.
        warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha")
        yield


def _fit_privately(
    make: _Factory, rows: _Encoded, recipe: Recipe, spec: TrainSpec, say: Progress
) -> tuple[TorchModel, tuple[str, ...]]:
    """DP-SGD by Opacus: Poisson sampling, per-row gradients clipped to ``max_grad_norm``, Gaussian noise, RDP account.

    epsilon is that of the accountant over the steps really taken, at ``delta``. Sources: Abadi et al., CCS 2016;
    Mironov, Talwar and Zhang, arXiv:1908.10530 (2019).
    """
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    n = len(rows)
    epsilon, delta = float(spec.dp_epsilon or 0.0), n**-1.1 if spec.dp_delta is None else spec.dp_delta
    if not 0.0 < delta < 1.0 / n:
        raise UsageError(f"--dp-delta must lie between 0 and 1/{n:,}, one over the training rows, not {delta:g}.")
    model = make(recipe)
    model.module.train()
    sampling, noise = _private_generators(spec.dp_noise_seed, model.device)
    with _opacus_quietly(), _seeded(make.seed):
        _refuse_layers(make(recipe), rows)
        engine = PrivacyEngine(accountant="rdp")
        optimizer = torch.optim.Adam(model.module.parameters(), lr=recipe.learning_rate)
        try:
            private, optimizer, loader = engine.make_private_with_epsilon(
                module=model.module,
                optimizer=optimizer,
                data_loader=DataLoader(TensorDataset(rows.x, rows.y), batch_size=recipe.batch_size, generator=sampling),
                target_epsilon=epsilon,
                target_delta=delta,
                epochs=recipe.epochs,
                max_grad_norm=spec.max_grad_norm,
                noise_generator=noise,
            )
        except ValueError as error:
            raise UsageError(f"--dp-epsilon {epsilon:g} cannot be reached: {error}") from None
        noisy = TorchModel(private, classes=make.classes, device=model.device)
        for epoch in range(1, recipe.epochs + 1):
            loss = _one_private_epoch(noisy, rows, loader.batch_sampler, optimizer)
            say(f"epoch {epoch} of {recipe.epochs}, loss {loss:.4f} (private)")
        spent = float(engine.get_epsilon(delta))
    recipe = replace(
        recipe,
        epsilon=spent,
        delta=delta,
        noise_multiplier=float(optimizer.noise_multiplier),
        max_grad_norm=spec.max_grad_norm,
    )
    # A fresh module without Opacus' hooks takes the weights, so that later gradients are ordinary ones.
    trained = make(recipe)
    trained.module.load_state_dict(model.module.state_dict())
    return trained, _private_notes(recipe, spec)


def _private_generators(noise_seed: int | None, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Generators of the Poisson sampling (on the CPU) and of the noise (on the device).

    Both are secret unless a seed is given: the guarantee holds against those who know neither draw.
    """
    seeds = np.random.SeedSequence(noise_seed).generate_state(2, np.uint64)
    return (
        torch.Generator().manual_seed(int(seeds[0])),
        torch.Generator(device=device).manual_seed(int(seeds[1])),
    )


def _one_private_epoch(
    noisy: TorchModel, rows: _Encoded, sampler: Iterator[list[int]], optimizer: torch.optim.Optimizer
) -> float:
    total, seen = 0.0, 0
    for drawn in sampler:
        batch = torch.tensor(drawn, dtype=torch.int64, device=rows.x.device)
        optimizer.zero_grad(set_to_none=True)
        losses = nn.functional.cross_entropy(noisy.logits(rows.x[batch]), rows.y[batch], reduction="none")
        # Opacus scales per-row gradients up by the size of the batch, as for a mean; an empty draw is a noisy step too.
        (losses.sum() / max(len(drawn), 1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(losses.detach().sum())
        seen += len(drawn)
    return _finite(total / max(seen, 1))


def _refuse_layers(model: TorchModel, rows: _Encoded) -> None:
    """Raises ModelError for a layer whose per-row gradient Opacus cannot take; ``model`` is used up by the trial."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    model.module.train()
    for name, layer in model.module.named_modules():
        kind = type(layer).__name__
        trainable = any(p.requires_grad for p in layer.parameters(recurse=False))
        validator = ModuleValidator.VALIDATORS.get(type(layer))
        refused = (validator is not None and bool(validator(layer))) or kind in ("GRU", "RNN")
        if refused or (trainable and any(True for _ in layer.buffers(recurse=False))):
            instead = _PRIVATE_LAYERS.get(kind, "a layer without buffers")
            raise ModelError(f"DP-SGD cannot train the layer {name or kind!r} ({kind}): replace it by {instead}.")
    few = rows.take(np.arange(min(3, len(rows)), dtype=np.int64))
    trial = TorchModel(GradSampleModule(model.module), classes=model.classes, device=model.device)
    try:
        nn.functional.cross_entropy(trial.logits(few.x), few.y).backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever Opacus and functorch raise on a layer they do not know
        raise ModelError(
            f"Opacus cannot take per-row gradients of {type(model.module).__name__}: {_one_line(error)}. "
            "Build it of the layers of torch.nn and opacus.layers."
        ) from error
    for name, parameter in model.module.named_parameters():
        gradient = getattr(parameter, "grad_sample", None)
        if parameter.requires_grad and (gradient is None or len(gradient) != len(few)):
            raise ModelError(
                f"The parameter {name!r} gets no gradient of its own for each row, so clipping could not protect any: "
                "use it once a row, inside a layer of torch.nn, or freeze it with requires_grad=False."
            )


def _private_notes(recipe: Recipe, spec: TrainSpec) -> tuple[str, ...]:
    seeded = (
        "The noise seed was given: whoever knows it can take the noise out again, so this model is for tests only."
        if spec.dp_noise_seed is not None
        else "The seed of the noise was drawn from the operating system and kept nowhere, so the run cannot be "
        "repeated bit by bit."
    )
    return (
        f"Trained privately (DP-SGD, Opacus, RDP accountant): epsilon {recipe.epsilon:.4g} at delta "
        f"{recipe.delta:.3g}, noise multiplier {recipe.noise_multiplier:.4g}, gradients clipped to "
        f"{recipe.max_grad_norm:g}, {recipe.epochs} epochs with Poisson sampling and without early stopping.",
        "Limits of that claim: means, deviations, medians and levels of the encoding come from the training rows "
        "outside the accounting; the noise is pseudo-random, not cryptographic; trying several settings spends more "
        "than one run.",
        seeded,
    )
