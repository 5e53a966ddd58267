"""Texts for a probe: training rows, or a user's file with its digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auditor.core.errors import DataError, NotApplicableError, OtherKindError, UsageError

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel


@dataclass(frozen=True)
class Texts:
    """Texts in the order of their file, and their source, in words."""

    texts: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.texts)


def read_texts(path: str, noun: str, column: str | None = None) -> Texts:
    """The texts of a ``.txt`` file, one a line without blank ones, or of a column of a table.

    ``column`` may be left out where the table has one column only, or one that is called ``text``. Raises UsageError
    where there is no such file or column, DataError where it holds no text.
    """
    import pyarrow as pa

    from auditor.core.files import regular_file, sha256_of
    from auditor.loading.rows.table_files import open_table, text_column

    where = regular_file(path, noun)
    table = open_table(where, noun)
    name = table.columns[0] if table.kind == "txt" else column or text_column(table.columns)
    if name is None:
        raise UsageError(
            f"The {noun} {where.name!r} has {len(table.columns)} columns: name the one with the texts "
            f"(column={table.columns[0]})."
        )
    values = table.read([name], {name: pa.string()}).column(name).to_pylist()
    found = [v for v in values if v is not None and v.strip()]
    if not found:
        raise DataError(f"The {noun} {where.name!r} holds no text.")
    return Texts(tuple(found), f"{where.name}, sha256 {sha256_of(where)[:16]}")


def training_texts(data: AuditData, path: str | None, column: str | None, probe: str) -> Texts:
    """Texts the model was trained on: those of ``path``, else the training rows.

    Raises NotApplicableError, which names the flags, where there are neither.
    """
    if path is not None:
        return read_texts(path, "file of texts", column)
    if data.members is None or data.modality != "text":
        raise NotApplicableError(
            "Needs texts the model was trained on: add --train FILE --data FILE --text COLUMN, or --set "
            f"{probe}.texts=FILE, one text a line."
        )
    return Texts(_texts_of(data.members), "--train")


def held_out_texts(data: AuditData) -> tuple[str, ...]:
    """Evaluation texts outside of the training data; empty if there are none."""
    return _texts_of(data.evaluation) if data.modality == "text" else ()


def _texts_of(rows: AuditData) -> tuple[str, ...]:
    return tuple(str(text) for text in rows.X if str(text).strip())


def causal_model(model: AuditedModel, prefix_token: str | int | None = None) -> AuditedLanguageModel:
    """The model as a causal language model, with another prefix if given; the given model is unchanged.

    Raises NotApplicableError for another kind, ConfigError for a token that its tokenizer does not have.
    """
    from auditor.models.capabilities import weights_of

    said = "Needs a causal language model: a masked one, an encoder-decoder or a classifier continues no text."
    if model.kind != "language_model":
        raise OtherKindError(said)
    found = weights_of(model)
    if found.objective != "causal":
        raise OtherKindError(said)
    return found if prefix_token is None else found.with_prefix(prefix_token)


def optional_path(option: str, value: object) -> None:
    """Raise ValueError if an option is neither None nor a path."""
    if not (value is None or (isinstance(value, str) and value)):
        raise ValueError(f"{option} must be the path of a file, not {value!r}")


def once_only(members: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Members and non-members that occur once in both files together, and the number of texts left out.

    Of a source in which some texts are frequent, a split puts the frequent ones into both files or often into one: kept
    once, they would make that file the one of the likelier texts, whatever a model has learned.
    """
    times = Counter([*members, *others])
    kept = [[t for t in side if times[t] == 1] for side in (members, others)]
    return kept[0], kept[1], len(members) + len(others) - len(kept[0]) - len(kept[1])


def unrepeated(members: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Distinct members and non-members without the shared texts, and the number of these."""
    shared = set(members) & set(others)
    return (
        [t for t in dict.fromkeys(members) if t not in shared],
        [t for t in dict.fromkeys(others) if t not in shared],
        len(shared),
    )
