"""A classifier of tables as one ``torch.export`` program: numbers in, probabilities and labels out.

torch knows no texts. The program takes (n, columns) numbers in double precision, as
:class:`auditor.data.table_columns.CodedColumns` says, which lies in it as a file of its own:
``torch.export.load(path, extra_files={"columns.json": ""})``. It returns probabilities (n, classes), in double
precision, and the places of the labels (n,) among the classes.
"""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from auditor.core.errors import UnsupportedError, first_line
from auditor.data.group_counts import MISSING
from auditor.data.preprocessing import CategoricalColumn, NumericColumn, label_name
from auditor.data.table_columns import CODED, CodedColumn, CodedColumns
from auditor.loading.exporting.served_table import GroupCodes, RuleTables, ServedTable
from auditor.models.output_kind import as_logits, as_probabilities
from auditor.models.torch_model import evaluating


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
