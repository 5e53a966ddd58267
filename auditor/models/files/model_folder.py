"""A model folder as files: read once, hashed, returned as bytes or parsed data; imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.core.errors import DamagedError, ModelError, UnsafeModelError
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable, read_source
from auditor.models.files.weight_files import LOADED_BY_SAFETENSORS
from auditor.models.format_names import FORMAT as FORMAT

if TYPE_CHECKING:
    from torch import Tensor

_MAX_JSON_BYTES = 16 << 20


class Folder:
    """A model folder and its files read so far; ``digest`` covers the name and the content of each of them.

    ``mapped``: whether weights in safetensors stay in their files, as pages of them.
    """

    def __init__(self, path: str, *, memory_map: bool = False) -> None:
        self.path = path
        self.mapped = memory_map
        self.name = printable(Path(path).resolve().name)
        self._digests: dict[str, str] = {}
        # What its safetensors files say beside their tensors.
        self.metadata: dict[str, str] = {}
        self.size_bytes = 0
        self.loaded_by = LOADED_BY_SAFETENSORS

    def has(self, name: str) -> bool:
        """Whether the folder contains a file of that name."""
        return (Path(self.path) / name).is_file()

    def names(self) -> list[str]:
        """Names in the folder, sorted."""
        return sorted(p.name for p in Path(self.path).iterdir())

    def read(self, name: str, max_bytes: int | None = None) -> Source:
        """One file of the folder; each file is read once."""
        where = Path(self.path) / name
        source = read_source(where) if max_bytes is None else read_source(where, max_bytes=max_bytes)
        self._digests[name] = source.sha256
        self.size_bytes += len(source.data)
        return source

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one safetensors file of the folder, read once, without a second copy in memory (and without
        any if ``mapped``)."""
        from auditor.models.files.streamed_safetensors import stream_safetensors

        tensors, self._digests[name], size = stream_safetensors(
            Path(self.path) / name, memory_map=self.mapped, metadata=self.metadata
        )
        self.size_bytes += size
        return tensors

    def json(self, name: str) -> dict[str, Any]:
        """One file of the folder as a JSON object. Raises UnsafeModelError where it names code to run."""
        source = self.read(name, _MAX_JSON_BYTES)
        with convert_parser_errors(f"{name!r} in {self.name!r} is no valid JSON"):
            parsed = json.loads(source.data)
            if not isinstance(parsed, dict):
                raise DamagedError(f"{name!r} in {self.name!r} is no JSON object.")
            code = next(_values_of(parsed, "auto_map"), None)
        if code is not None:
            raise UnsafeModelError(
                f"{name!r} in {self.name!r} names code to import and run ({printable(json.dumps(code), 100)}); code "
                "that comes with a model is never run. Audit it with --predict package.module:function."
            )
        return parsed

    def has_read(self, name: str) -> bool:
        """Whether that file was read."""
        return name in self._digests

    @property
    def names_read(self) -> list[str]:
        """The files that were read, sorted."""
        return sorted(self._digests)

    @property
    def sha256(self) -> str:
        """Digest over the sorted listing ``sha256  name`` of the files that were read."""
        listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(self._digests.items()))
        return hashlib.sha256(listing.encode()).hexdigest()


def is_beside(file: str, graph: str) -> bool:
    """Whether a file holds tensors of the graph beside which it lies, by its name: as torch and optimum write them."""
    return re.fullmatch(re.escape(graph) + r"[._]data(_\d+)?", file) is not None


def _values_of(parsed: object, key: str) -> Iterator[object]:
    stack = [parsed]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if key in item:
                yield item[key]
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def no_model(folder: Folder) -> str:
    """The reason why a folder without config.json cannot be loaded, and the path to use instead."""
    return (
        f"{folder.name!r} is a folder without a config.json: name a model file, or a folder that "
        "model.save_pretrained(folder) wrote."
    )


def open_model_folder(path: str, *, memory_map: bool = False) -> tuple[Folder, Mapping[str, Any]]:
    """A folder and the contents of its config.json.

    Raises ModelError where it has none.
    """
    folder = Folder(path, memory_map=memory_map)
    if not folder.has("config.json"):
        raise ModelError(no_model(folder), code="AUD-LOAD-INCOMPLETE")
    return folder, folder.json("config.json")
