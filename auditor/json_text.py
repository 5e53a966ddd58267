"""Why a text cannot be read as JSON or TOML, in words for whoever wrote it."""

from __future__ import annotations

import json
import tomllib

from auditor.errors import first_line

# What reading a text with json or tomllib raises, whatever is wrong with it.
UNREADABLE = (ValueError, RecursionError)


def why_unreadable(error: BaseException) -> str:
    """What is wrong with the text, from one of the errors in ``UNREADABLE``."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError)):
        return first_line(error)
    # All that is left is the interpreter's limit of digits, whose message advises to lift the limit.
    return "it holds a whole number of thousands of digits"
