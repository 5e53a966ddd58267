"""Text files with one text per line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import pyarrow as pa

# What the one column of a file of lines is called, and that of texts in a table where nobody says.
TEXT = "text"


def texts_in(source: IO[bytes], longest: int) -> Iterator[str]:
    """The non-blank lines, stripped.

    Raises ArrowInvalid for a line of more than ``longest`` bytes, UnicodeError for text that is not UTF-8.
    """
    begun = False
    while line := source.readline(longest + 1):
        if len(line) > longest:
            raise pa.ArrowInvalid("a line is too long")
        text = line.decode("utf-8")
        if text := (text if begun else text.removeprefix("\ufeff")).strip():
            yield text
        begun = True
