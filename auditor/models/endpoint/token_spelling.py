"""Token spellings of a reference model, to match the token names that a server reports: classes of tokens.

Several tokens may be written alike, and a server reports names. Tokens of one name are one class, whose probability is
the sum of theirs; those that have no name of their own, parts of a character, special tokens and ends, are one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import ModelError
from auditor.models.language_model import AuditedLanguageModel

NAMELESS = 0
_BROKEN = "\ufffd"
_BYTES = "bytes:"


@dataclass(frozen=True)
class Spelling:
    """``names``: of each token inside a text, "" if none; ``pieces``: the vocabulary's spelling."""

    names: tuple[str, ...]
    pieces: tuple[str, ...]
    special: frozenset[str]

    @classmethod
    def from_model(cls, reference: AuditedLanguageModel) -> Spelling:
        """The spelling of a reference's tokenizer, for all outputs of its network.

        Raises ModelError without any token.
        """
        backend: Any = reference.tokenizer.backend_tokenizer
        network: Any = reference.module
        size = int(network.get_input_embeddings().weight.shape[0])
        special = {int(i) for i in getattr(reference.tokenizer, "all_special_ids", ())} | _ends(network)
        special |= {int(i) for i, token in backend.get_added_tokens_decoder().items() if token.special}
        pieces = [backend.id_to_token(i) or "" for i in range(size)]
        known = [i for i in range(size) if pieces[i] and i not in special]
        if not known:
            raise ModelError("The reference's tokenizer has no token that text is made of.")
        # Some decoders drop a blank at the start: what a token adds to another is what it writes.
        anchor = next((i for i in known if pieces[i].isalpha()), known[0])
        before = backend.decode([anchor], skip_special_tokens=False)
        names = [""] * size
        for i, text in zip(
            known, backend.decode_batch([[anchor, i] for i in known], skip_special_tokens=False), strict=True
        ):
            if text.startswith(before) and _BROKEN not in text[len(before) :]:
                names[i] = text[len(before) :]
        return cls(tuple(names), tuple(pieces), frozenset(pieces[i] for i in special if i < size))

    @cached_property
    def classes(self) -> npt.NDArray[np.int64]:
        """(n_tokens,) the class of each token by its name."""
        return _classes(self.names)

    @cached_property
    def bare_classes(self) -> npt.NDArray[np.int64]:
        """(n_tokens,) the classes by names without surrounding blanks, as some servers cut whole texts."""
        return _classes([name.strip() for name in self.names])

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: int(c) for name, c in zip(self.names, self.classes, strict=True) if name}

    @cached_property
    def _by_piece(self) -> dict[str, int]:
        return {piece: int(c) for piece, c in zip(self.pieces, self.classes, strict=True) if piece}

    @cached_property
    def _bare(self) -> dict[str, int]:
        return {name.strip(): int(c) for name, c in zip(self.names, self.bare_classes, strict=True) if name.strip()}

    @cached_property
    def _name_of(self) -> dict[int, str]:
        return {int(c): name for name, c in zip(self.names, self.classes, strict=True)}

    @cached_property
    def _members(self) -> dict[int, int]:
        """The token of each class that has one only."""
        counts = np.bincount(self.classes)
        return {int(c): i for i, c in enumerate(self.classes) if c != NAMELESS and counts[c] == 1}

    def token_of(self, token_class: int) -> int | None:
        """The one token of a class; None where there are several, or they have no name."""
        return self._members.get(token_class)

    def classes_of_names(self, names: Sequence[str]) -> list[int | None]:
        """The classes of reported names, None if one is not a token of the reference.

        Names are tokens as they are written or, all of them, as the vocabulary writes them.
        """
        written = [self._class_of_name(name, self._by_name) for name in names]
        if None not in written:
            return written
        raw = [self._class_of_name(name, self._by_piece) for name in names]
        return raw if None not in raw else written

    def _class_of_name(self, name: str, table: dict[str, int]) -> int | None:
        if not name or _BROKEN in name or name in self.special or name.startswith(_BYTES):
            return NAMELESS
        return table.get(name)

    def told_bare(self, text: str) -> int | None:
        """The bare class of a text that is one token."""
        bare = text.strip()
        return NAMELESS if not bare or _BROKEN in bare or bare in self.special else self._bare.get(bare)

    def text_of_classes(self, classes: Sequence[int]) -> str:
        """The text of tokens up to the first without a name."""
        named = list(classes)
        if NAMELESS in named:
            named = named[: named.index(NAMELESS)]
        return "".join(self._name_of[c] for c in named)


def _classes(names: Sequence[str]) -> npt.NDArray[np.int64]:
    number = {"": NAMELESS}
    return np.asarray([number.setdefault(name, len(number)) for name in names], np.int64)


def _ends(network: Any) -> set[int]:
    named: list[Any] = []
    for holder in ("generation_config", "config"):
        value = getattr(getattr(network, holder, None), "eos_token_id", None)
        named += value if isinstance(value, list) else [value]
    return {int(i) for i in named if i is not None}
