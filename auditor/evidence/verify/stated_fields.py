"""The one table of what a signer may state: fields of a record that follow from nothing that a bundle encloses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auditor.evidence.verify.checks import Needs, Unproven


@dataclass(frozen=True, kw_only=True)
class StatedField:
    """Why nothing proves a field, and what it ``needs``: None for a plain statement.

    ``otherwise``: it follows from another part in most bundles, and is stated only in those where it does not. So is
    whatever needs something.
    """

    why: str
    needs: Needs | None = None
    otherwise: bool = False


_NAME = StatedField(why="what it is called is the signer's word")
_FILE = StatedField(why="whether the file has this digest, whoever has the file can tell: auditor evidence reproduce")
_MACHINE = StatedField(why="where it ran is the signer's word")
_ROWS = StatedField(
    why="what was read of the rows' file is the signer's word: auditor evidence reproduce reads it again"
)
_ROWS_FILE = StatedField(why=_ROWS.why, needs="rows")
_NO_TABLE = StatedField(why="no table of groups counts them", needs="numbers")
_NO_SETTINGS = StatedField(why="the settings in force do not name it", otherwise=True)
_FAVOURABLE = StatedField(
    why="no setting names it, and which label is favourable was read from the rows: auditor evidence reproduce reads "
    "them again",
    needs="rows",
)
_OTHER_CODE = StatedField(why="other code wrote it", otherwise=True)
_HISTORY = StatedField(why="where it was entered is for the history to say: --db", needs="history")

# Fields as dotted paths; ``.*`` is all below one. A field that is none of these follows from another part.
STATED: Mapping[str, StatedField] = {
    "schema_version": _OTHER_CODE,
    # Its place in time is told by the check of dates.
    "created": StatedField(why="dates are the signer's word where no timestamp tells them", needs="timestamp"),
    "tool": StatedField(why="which code measured is the log's word"),
    "model.path": _NAME,
    "model.sha256": _FILE,
    "model.root_sha256": _FILE,
    "model.format": _FILE,
    "model.loaded_by": _MACHINE,
    "model.size_bytes": _FILE,
    "model.n_parameters": _FILE,
    "model.dtype": _MACHINE,
    "model.classes": _FILE,
    "model.notes": _FILE,
    "model.stated_name": _FILE,
    "data.path": _NAME,
    "data.sha256": _FILE,
    "data.rows_sha256": _FILE,
    "data.n_rows": StatedField(why="no answers by row are stored", otherwise=True),
    "data.target": _NO_SETTINGS,
    "data.positive": _FAVOURABLE,
    "data.sensitive": _NO_SETTINGS,
    "data.train_path": _NAME,
    "data.train_sha256": _FILE,
    "data.n_train_rows": _ROWS,
    "data.unreadable": _ROWS,
    "data.n_unreadable": _ROWS,
    "data.notes": _ROWS,
    "data.cluster": _NO_SETTINGS,
    "data.n_clusters": _ROWS_FILE,
    "data.weight": _NO_SETTINGS,
    "data.design_effect": _ROWS_FILE,
    "data.effective_n": _ROWS_FILE,
    "data.cluster_at_most": _NO_SETTINGS,
    "data.weight_at_most": _NO_SETTINGS,
    "data.copies.*": StatedField(why=_ROWS.why, needs="numbers"),
    "data.groups_sha256": _FILE,
    "data.groups": _NO_TABLE,
    "data.missing.labels": StatedField(why=_ROWS.why, needs="numbers"),
    "data.missing.*": _ROWS,
    "environment.python": _MACHINE,
    "environment.platform": _MACHINE,
    "environment.packages": _MACHINE,
    "environment.device": _MACHINE,
    "environment.limits": _MACHINE,
    "environment.sandbox.*": _MACHINE,
    "environment.command": StatedField(why="how it was started is the signer's word"),
    "criteria.*": StatedField(why="who set a bound, and why, is the signer's word"),
    "refusal.*": StatedField(why="why a file was refused, the file alone shows: auditor evidence reproduce"),
    "registration.path": _NAME,
    "registration.entered.*": _HISTORY,
    "registration.cautions": _HISTORY,
    "looks.*": StatedField(why="how often these rows were looked at is for the history to say: --db", needs="history"),
    "training.*": StatedField(why="what was seen while the model learned is not counted anew", needs="numbers"),
    "about.*": StatedField(why="names, purposes and descriptions are the signer's word"),
    "configuration.*": StatedField(why="who named a file, and where it lay, is the signer's word"),
    "roles.*": StatedField(why="what a column holds is the signer's word"),
    "energy.*": StatedField(why="what it took is the signer's word: counters cannot be read again"),
    "duration_s": StatedField(why="how long it took is the signer's word"),
}
_PARTS = (
    Unproven(
        where="rows.csv: *",
        why="that the model gave these answers, only the model can tell: auditor evidence reproduce",
    ),
    Unproven(where="log.jsonl: *", why="what is logged beside the record is the signer's word"),
    Unproven(where="request.json: *", why="what was asked for and is not in the record is the signer's word"),
)
_RECORD = "record.json: "
# A record has these always; of any other, 0 is a statement.
_ZERO_SAYS_NOTHING = ("data.n_unreadable", "duration_s")


def list_unproven(record: Mapping[str, Any], known_paths: Collection[str]) -> list[Unproven]:
    """The stated fields of a record; ``known_paths``: of what follows from another part."""
    return [
        *(
            Unproven(where=f"{_RECORD}{path}", why=stated.why, needs=stated.needs)
            for path, stated in STATED.items()
            if _says(record, path) and not ((stated.needs or stated.otherwise) and path in known_paths)
        ),
        *_PARTS,
    ]


def _says(record: Mapping[str, Any], path: str) -> bool:
    value: Any = record
    for key in path.removesuffix(".*").split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value not in (None, "", [], {}) and (value != 0 or path not in _ZERO_SAYS_NOTHING)


def unexplained_paths(
    record: Mapping[str, Any], known_paths: Collection[str], unproven: Sequence[Unproven], path: str = ""
) -> Iterator[str]:
    """The places of a record that follow from no part, and that nobody may state."""
    places = {each.where.removeprefix(_RECORD).removesuffix(".*") for each in unproven}
    known = {*known_paths, *places, *(stated.removesuffix(".*") for stated in STATED)}
    return _unexplained_below(record, known, path)


def _unexplained_below(record: Mapping[str, Any], known: Collection[str], before: str) -> Iterator[str]:
    for key, value in record.items():
        path = f"{before}{key}"
        if path in known or value in (None, "", [], {}, 0):
            continue
        if isinstance(value, Mapping):
            yield from _unexplained_below(value, known, f"{path}.")
        else:
            yield path
