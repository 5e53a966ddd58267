"""Text in the PDF: visible control characters, and break points in long names, so that no cell overflows."""

from __future__ import annotations

import re

from auditor.report.record import number_text

_LONGEST_RUN = 22
BREAK = "\N{ZERO WIDTH SPACE}"
_RUN = re.compile(rf"\S{{{_LONGEST_RUN},}}")


def breaking(words: str) -> str:
    """Text with break points after underscores and slashes, and finally anywhere, so that no cell overflows."""

    def run(match: re.Match[str]) -> str:
        parts = re.sub(r"([_/=,.+-])", rf"\1{BREAK}", match.group()).split(BREAK)
        pieces = [p[i : i + _LONGEST_RUN] for p in parts for i in range(0, len(p), _LONGEST_RUN)]
        return BREAK.join(pieces)

    return _RUN.sub(run, words)


def worded(words: str | None) -> str:
    """Text from any source."""
    return breaking(number_text.visible(words or ""))


def narrow(words: str) -> str:
    """A name for narrow columns, with a break point after every underscore."""
    said = worded(words)
    return re.sub(r"(?<=_)(?=[^_])", BREAK, said.replace(BREAK, "")) if len(words) < _LONGEST_RUN else said
