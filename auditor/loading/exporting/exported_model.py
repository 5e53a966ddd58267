"""The export of a model: the file's bytes, and a check that it decides every row as the model does.

A classifier of tables becomes a scikit-learn pipeline: imputer, scaler and one-hot encoder, then an ``MLPClassifier``.
Every part is fitted on a few invented rows and then given the model's own numbers, so that nothing but scikit-learn and
numpy is needed to load it. A column of truth values takes truth values, every other column of levels takes text.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, UnsupportedError, UsageError, first_line
from auditor.core.rows import FloatArray, IntArray
from auditor.data.group_counts import MISSING
from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing, as_text, label_name
from auditor.data.table_columns import CODED, CodedColumn, CodedColumns
from auditor.loading.exporting.onnx_file import onnx_bytes, output_names
from auditor.loading.exporting.served_table import GroupCodes, RuleTables, Served, ServedTable, served_parts
from auditor.loading.rows.score_columns import predictions_file
from auditor.models.audited_model import BATCH_ROWS, AuditedModel
from auditor.models.files.onnx_graphs import Graph, libraries, session_of
from auditor.models.networks.architectures import MLP
from auditor.models.output_kind import as_logits, as_probabilities
from auditor.models.torch_model import evaluating

if TYPE_CHECKING:
    import pandas as pd


def coded_columns(table: ServedTable) -> CodedColumns:
    """The columns of the program: a feature's levels first, then group columns that are not features."""
    return CodedColumns(
        columns=tuple(CodedColumn(name=name, values=_values(table, name)) for name in table.columns),
        classes=table.classes,
        positive=None if table.positive is None else table.classes[table.positive],
        threshold=table.threshold,
    )


def _values(table: ServedTable, name: str) -> tuple[str | None, ...] | None:
    if name in table.numeric:
        return None
    of_features = {c.name: c for c in table.preprocessing.columns if isinstance(c, CategoricalColumn)}
    levels = [label_name(level) for level in of_features[name].levels] if name in of_features else []
    if table.rule is None or name not in table.rule.columns:
        return tuple(levels)
    at = table.rule.columns.index(name)
    groups = dict.fromkeys(g.group[at] for g in table.rule.groups)
    missing = [None] if MISSING in groups else []
    return (*levels, *(group for group in groups if group not in (*levels, MISSING)), *missing)


class Program(nn.Module):
    """(n, columns) numbers to (n, classes) probabilities and (n,) places of labels."""

    mean: Tensor
    scale: Tensor
    impute: Tensor
    edges: Tensor
    base: Tensor
    slope: Tensor
    value: Tensor
    scaled: Tensor
    odds_slope: Tensor
    odds_intercept: Tensor
    wanted: Tensor
    absent: Tensor

    def __init__(self, table: ServedTable) -> None:
        super().__init__()
        self.network = table.network
        self.table = table
        coded = coded_columns(table)
        at = {name: i for i, name in enumerate(table.columns)}
        self.parts: list[tuple[int, int]] = []
        own = table.preprocessing.columns
        for column in own:
            self.parts.append((at[column.name], len(column.levels) if isinstance(column, CategoricalColumn) else 0))
        numbers = [c if isinstance(c, NumericColumn) else NumericColumn(name=c.name) for c in own]
        self.register_buffer("mean", torch.tensor([c.mean for c in numbers], dtype=torch.float64))
        self.register_buffer("scale", torch.tensor([c.scale for c in numbers], dtype=torch.float64))
        self.register_buffer("impute", torch.tensor([c.impute for c in numbers], dtype=torch.float64))
        if table.rule is not None:
            self._keep_rule(table, coded)

    def _keep_rule(self, table: ServedTable, coded: CodedColumns) -> None:
        rule = table.rule
        assert rule is not None
        groups, tables = GroupCodes.from_rule(rule), RuleTables.from_rule(rule)
        for name in ("edges", "base", "slope", "value", "scaled", "odds_slope", "odds_intercept"):
            self.register_buffer(name, torch.from_numpy(getattr(tables, name)))
        self.reached, self.any_scaled = tables.reached, bool(tables.scaled.any())
        self.group_columns: list[int] = []
        # Of each group what stands in each of its columns, and whether it is of those where nothing does.
        wanted, absent = torch.zeros(groups.codes.shape, dtype=torch.float64), torch.zeros(groups.codes.shape)
        for c, name in enumerate(rule.columns):
            i = table.columns.index(name)
            self.group_columns.append(i)
            values = coded.columns[i].values
            codes = groups.codes[:, c]
            if values is None:
                wanted[:, c] = torch.from_numpy(groups.numbers(c)[codes])
                absent[:, c] = torch.tensor([groups.names[c][k] == MISSING for k in codes])
            else:
                place = {value: j for j, value in enumerate(values)}
                names = [None if groups.names[c][k] == MISSING else groups.names[c][k] for k in codes]
                wanted[:, c] = torch.tensor([float(place[name]) for name in names])
        self.register_buffer("wanted", wanted)
        self.register_buffer("absent", absent.bool())

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        rows = rows.double()
        found = self._probabilities(self.network(self._encoded(rows)).detach())
        if self.table.rule is not None:
            found = self._ruled(found, rows)
        return found, self._labels(found)

    def _encoded(self, rows: Tensor) -> Tensor:
        parts = []
        for k, (column, levels) in enumerate(self.parts):
            own = rows[:, column : column + 1]
            if levels:
                parts.append((own == torch.arange(levels, dtype=torch.float64, device=rows.device)).float())
            else:
                filled = torch.where(own.isnan(), self.impute[k], own)
                parts.append(((filled - self.mean[k]) / self.scale[k]).float())
        return torch.cat(parts, dim=1)

    def _probabilities(self, raw: Tensor) -> Tensor:
        if raw.dim() == 1:
            raw = raw.unsqueeze(1)
        if self.table.outputs == "probabilities":
            return as_probabilities(raw)
        return torch.softmax(as_logits(raw, "logits").double(), dim=1)

    def _ruled(self, probabilities: Tensor, rows: Tensor) -> Tensor:
        rule = self.table.rule
        assert rule is not None
        score = probabilities[:, rule.positive : rule.positive + 1]
        place = self._group(rows)
        edges = self.edges[place]
        passed = (score >= edges) if self.reached else (score > edges)
        at = passed.long().sum(dim=1, keepdim=True)
        slope, base, value = (part[place].gather(1, at) for part in (self.slope, self.base, self.value))
        answer = slope * (score - base) + value
        if self.any_scaled:
            inside = score.clamp(1e-12, 1.0 - 1e-12)
            odds = inside.log() - torch.log1p(-inside)
            z = self.odds_slope[place].unsqueeze(1) * odds + self.odds_intercept[place].unsqueeze(1)
            answer = torch.where(self.scaled[place].unsqueeze(1), 0.5 * (1.0 + torch.tanh(0.5 * z)), answer)
        return torch.cat([1.0 - answer, answer] if rule.positive == 1 else [answer, 1.0 - answer], dim=1)

    def _group(self, rows: Tensor) -> Tensor:
        """(n,) place of each row's group, the last where no rule names it."""
        own = rows[:, self.group_columns].unsqueeze(1)
        same = ((own == self.wanted) | (own.isnan() & self.absent)).all(dim=2)
        # Behind all groups stands one half in every row, which is the largest where no group is there.
        half = torch.full_like(rows[:, :1], 0.5)
        return torch.cat([same.double(), half], dim=1).argmax(dim=1)

    def _labels(self, probabilities: Tensor) -> Tensor:
        table = self.table
        if table.rule is not None and table.rule.decides:
            return _select_class(probabilities[:, table.rule.positive] > 0.5, table.rule.positive)
        if len(table.classes) == 2 and table.positive is not None:
            return _select_class(probabilities[:, table.positive] >= table.threshold, table.positive)
        return probabilities.argmax(dim=1)


def _select_class(yes: Tensor, positive: int) -> Tensor:
    return torch.where(yes, positive, 1 - positive)


def torch_bytes(table: ServedTable) -> bytes:
    """The program's file. Raises UnsupportedError where torch cannot export the network."""
    program = Program(table)
    example = torch.zeros((3, len(table.columns)), dtype=torch.float64, device=table.device)
    with evaluating(program):
        try:
            exported = torch.export.export(
                program, (example,), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},), strict=False
            )
        except Exception as error:  # whatever torch raises of a network that it cannot follow
            raise UnsupportedError(f"torch.export cannot follow this network: {first_line(error)}.") from error
    buffer = io.BytesIO()
    torch.export.save(exported, buffer, extra_files={CODED: coded_columns(table).model_dump_json()})
    return buffer.getvalue()


_TRUTH = {"False": False, "True": True}


def skops_bytes(table: ServedTable) -> bytes:
    """The file. Raises UnsupportedError for a group rule, and for a network that is no MLP: scikit-learn has no place
    for either."""
    import skops.io

    content: bytes = skops.io.dumps(estimator_of(table))
    return content


def estimator_of(table: ServedTable) -> Any:
    """The fitted pipeline; wrapped with a threshold if one of two classes is favourable."""
    from sklearn.model_selection import FixedThresholdClassifier
    from sklearn.pipeline import Pipeline

    if table.rule is not None:
        raise UnsupportedError("scikit-learn has no place for a rule by group: use --to onnx, which holds it too.")
    layers = _layers(table)
    numbers = [c for c in table.preprocessing.columns if isinstance(c, NumericColumn)]
    levels = [c for c in table.preprocessing.columns if isinstance(c, CategoricalColumn)]
    model: Any = Pipeline([("encoding", _encoder(numbers, levels)), ("network", _network(layers))])
    decided = len(table.classes) == 2 and table.positive is not None
    if decided:
        positive = table.classes[table.positive or 0]
        model = FixedThresholdClassifier(
            model, threshold=table.threshold, pos_label=positive, response_method="predict_proba"
        )
    n = max(len(table.classes), *(len(c.levels) for c in levels), 2)
    labels = np.asarray(table.classes)[np.arange(n) % len(table.classes)]
    with warnings.catch_warnings():
        # The network is fitted on rows that mean nothing, and not to the end.
        warnings.simplefilter("ignore")
        model.fit(_invented(numbers, levels, n), labels)
    pipeline = model.estimator_ if decided else model
    _set_numbers(pipeline["encoding"], numbers)
    _set_weights(pipeline["network"], layers, table.classes, _order(table, numbers, levels))
    return model


def as_taken(X: pd.DataFrame, encoding: TabularPreprocessing) -> pd.DataFrame:
    """The rows in the pipeline's form: booleans if all levels are booleans, else text."""
    changed = {}
    for column in encoding.columns:
        if isinstance(column, CategoricalColumn):
            text = as_text(X[column.name])
            names = text.astype(object).where(text.notna(), None)
            if set(map(label_name, column.levels)) <= set(_TRUTH):
                names = names.map(lambda name: None if name is None else _TRUTH.get(label_name(name)))
            changed[column.name] = names.astype(object)
    return X.assign(**changed)[list(encoding.features)]


def _layers(table: ServedTable) -> list[nn.Linear]:
    network = table.network
    if type(network) is not MLP or table.one_number or table.outputs != "logits":
        raise UnsupportedError(
            f"scikit-learn has no network like {type(network).__name__}, only fully connected ones with ReLU and an "
            "output for each class: use --to onnx."
        )
    return [layer for layer in network.layers if isinstance(layer, nn.Linear)]


def _invented(numbers: list[NumericColumn], levels: list[CategoricalColumn], n: int) -> pd.DataFrame:
    """Rows in which every level stands."""
    import pandas as pd

    columns: dict[str, Any] = {c.name: np.arange(n, dtype=np.float64) for c in numbers}
    columns |= {c.name: pd.Series(list(islice(cycle(_categories(c)), n))) for c in levels}
    return pd.DataFrame(columns)


def _categories(column: CategoricalColumn) -> list[Any]:
    """The levels as the encoder has them, sorted."""
    names = sorted(map(label_name, column.levels))
    if len(set(names)) < len(names):
        raise UnsupportedError(f"The column {column.name!r} has a level twice: use --to onnx.")
    return [_TRUTH[name] for name in names] if set(names) <= set(_TRUTH) else names


def _order(table: ServedTable, numbers: list[NumericColumn], levels: list[CategoricalColumn]) -> IntArray:
    """(width,) which of the model's encoded columns each of the encoder's is."""
    starts = {
        name: span.start for name, span in zip(table.preprocessing.features, table.preprocessing.spans, strict=True)
    }
    found = [starts[c.name] for c in numbers]
    for column in levels:
        own = table.levels(column.name)
        found += [starts[column.name] + own[str(level)] for level in _categories(column)]
    return np.asarray(found, np.int64)


def _encoder(numbers: list[NumericColumn], levels: list[CategoricalColumn]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts: list[Any] = []
    if numbers:
        scaled = Pipeline([("missing", SimpleImputer(strategy="median")), ("scale", StandardScaler())])
        parts.append(("numbers", scaled, [c.name for c in numbers]))
    if levels:
        indicators = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        parts.append(("levels", indicators, [c.name for c in levels]))
    return ColumnTransformer(parts)


def _network(layers: list[nn.Linear]) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(tuple(layer.out_features for layer in layers[:-1]), max_iter=1, random_state=0)


def _set_numbers(encoder: Any, numbers: list[NumericColumn]) -> None:
    if not numbers:
        return
    scaled = encoder.named_transformers_["numbers"]
    scaled["missing"].statistics_ = np.asarray([c.impute for c in numbers])
    scaled["scale"].mean_ = np.asarray([c.mean for c in numbers])
    scaled["scale"].scale_ = np.asarray([c.scale for c in numbers])
    scaled["scale"].var_ = scaled["scale"].scale_ ** 2


def _set_weights(network: Any, layers: list[nn.Linear], classes: tuple[str, ...], order: IntArray) -> None:
    """The weights in scikit-learn's order of inputs and of classes; of two classes it has the log-odds alone."""
    weights = [layer.weight.detach().cpu().double().numpy().T.copy() for layer in layers]
    biases = [layer.bias.detach().cpu().double().numpy().copy() for layer in layers]
    weights[0] = weights[0][order]
    if len(classes) == 2:
        last, first = network.classes_.tolist().index(classes[1]), network.classes_.tolist().index(classes[0])
        sign = 1.0 if last > first else -1.0
        weights[-1] = sign * (weights[-1][:, 1:] - weights[-1][:, :1])
        biases[-1] = sign * (biases[-1][1:] - biases[-1][:1])
    else:
        of_class = [classes.index(name) for name in network.classes_.tolist()]
        weights[-1], biases[-1] = weights[-1][:, of_class], biases[-1][of_class]
    network.coefs_, network.intercepts_ = weights, biases


To = Literal["onnx", "torch", "sklearn"]
SUFFIXES: dict[To, str] = {"onnx": ".onnx", "torch": ".pt2", "sklearn": ".skops"}
# Labels (n,) and probabilities (n, classes) in the order of the model's classes.
_Answers = tuple[npt.NDArray[Any], FloatArray]
_Asked = Callable[["pd.DataFrame"], _Answers]


@dataclass(frozen=True)
class Equality:
    """The comparison of both models on the same rows: number of rows, rows with different decisions (0-based), the
    largest difference of a class probability, and what the exported file answers, as ``--check-predictions`` takes it.
    """

    rows: int
    differing: tuple[int, ...]
    largest_difference: float
    predictions: bytes


@dataclass(frozen=True)
class Export:
    """A model as one exported file, not tested yet."""

    model: AuditedModel
    to: To
    table: Served
    content: bytes

    def equality(self, rows: pd.DataFrame) -> Equality:
        """Read the file back and compare both models on the rows.

        Raises ModelError where one of them cannot be asked.
        """
        probabilities = self.model.predict_proba(rows)
        decided = self.model.decide_rows(rows, probabilities, self.table.positive)
        expected = np.asarray(self.table.classes, object)[decided]
        ask = _ASK[self.to](self.content, self.table)
        differing, answered = list[int](), list[_Answers]()
        largest = 0.0
        for start in range(0, len(rows), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            try:
                labels, found = ask(rows.iloc[part])
            except ModelError:
                raise
            except Exception as error:  # of another library, about a file of ours
                raise ModelError(f"The exported file cannot be asked about these rows: {str(error)[:300]}") from error
            answered.append((labels, found))
            differing += (start + np.flatnonzero(labels != expected[part])).tolist()
            # A probability that is no number is as far off as can be.
            away = np.nan_to_num(np.abs(found - probabilities[part]), nan=1.0)
            largest = max(largest, float(away.max(initial=0.0)))
        decisions = [label for part, _ in answered for label in part.tolist()]
        found = np.concatenate([part for _, part in answered]) if answered else probabilities
        return Equality(len(rows), tuple(differing), largest, predictions_file(decisions, found, self.table.classes))


def export_of(model: AuditedModel, target: To, *, positive: int | None) -> Export:
    """The model as one file; ``positive``: index of the favourable class of two.

    Raises UnsupportedError for what cannot be exported so, UsageError where a threshold is of nobody knows which class,
    MissingExtraError without onnx.
    """
    table = served_parts(model, positive)
    decides_itself = table.rule is not None and table.rule.decides
    if positive is None and len(table.classes) == 2 and table.threshold != 0.5 and not decides_itself:
        raise UsageError(
            f"The model holds the probability of the favourable label against {table.threshold:g}: add --positive "
            f"{table.classes[0]} or --positive {table.classes[1]} to say which that is."
        )
    if target == "onnx":
        return Export(model, target, table, onnx_bytes(table))
    if not isinstance(table, ServedTable):
        raise UnsupportedError(
            "An ONNX model, an estimator or boosted trees become one file with their group rule: use --to onnx."
        )
    return Export(model, target, table, torch_bytes(table) if target == "torch" else skops_bytes(table))


def _onnx(content: bytes, table: Served) -> _Asked:
    label, probabilities = output_names(table.columns)
    graph = Graph(session_of(libraries()[1], content), "the exported file")

    def ask(rows: pd.DataFrame) -> _Answers:
        found = [graph.run(rows, table.columns, name) for name in (label, probabilities)]
        return np.asarray(found[0], object), np.asarray(found[1], np.float64)

    return ask


def _torch(content: bytes, table: Served) -> _Asked:
    import torch

    extra = {CODED: ""}
    module = torch.export.load(BytesIO(content), extra_files=extra).module()
    coded = CodedColumns.model_validate_json(extra[CODED])

    def ask(rows: pd.DataFrame) -> _Answers:
        found, places = module(torch.from_numpy(coded.encode(rows)))
        return np.asarray(coded.classes, object)[places.cpu().numpy()], found.cpu().numpy()

    return ask


def _sklearn(content: bytes, table: Served) -> _Asked:
    import skops.io

    assert isinstance(table, ServedTable)
    # Every type in it was put there by this process a moment ago.
    model = skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))
    order = [model.classes_.tolist().index(name) for name in table.classes]

    def ask(rows: pd.DataFrame) -> _Answers:
        taken = as_taken(rows, table.preprocessing)
        return np.asarray(model.predict(taken), object), np.asarray(model.predict_proba(taken))[:, order]

    return ask


_ASK: dict[To, Callable[[bytes, Served], _Asked]] = {"onnx": _onnx, "torch": _torch, "sklearn": _sklearn}
