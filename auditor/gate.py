#!/usr/bin/env -S python3 -I
"""Gate on a recorded audit by the standard library alone: ``python -m auditor.gate report.json``, or this file alone.

It takes the record's verdict, and refuses one that the outcomes of its own findings contradict; ``auditor gate`` judges
all of it anew. Exit codes: as of a scan, the worst of all records; 4 for what is no record or contradicts itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

_RECORD = "report.json"
_REFUSED = 4
_GRAVEST_FIRST = (_REFUSED, 1, 3, 0)
# What each exit code takes and rules out among the outcomes of the findings.
_NEEDS = {0: {"PASS", "INCONCLUSIVE"}, 1: {"FAIL"}, 3: set()}
_RULED_OUT = {0: {"FAIL", "NOT_RUN"}, 1: set(), 3: {"FAIL"}}


def gate(path: Path) -> tuple[int, list[str]]:
    """The exit code of a record, and lines that say why."""
    place = path / _RECORD if path.is_dir() else path
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        code, findings = int(record["exit_code"]), record["findings"]
        outcomes = [str(finding["outcome"]) for finding in findings]
        lines = [f"{f['outcome']}  {f['id']}" for f in findings if f["outcome"] in ("FAIL", "NOT_RUN")]
        refusal, waived = record.get("refusal"), bool(record.get("allow_inconclusive"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return _REFUSED, [f"no record of an audit can be read there ({type(error).__name__})"]
    if refusal is not None or code == _REFUSED:
        return _REFUSED, ["the model or the data were refused"]
    found = set(outcomes)
    ruled_out = _RULED_OUT.get(code, found) | ({"INCONCLUSIVE"} if code == 0 and not waived else set())
    if code not in _NEEDS or found & ruled_out or (_NEEDS[code] and not found & _NEEDS[code]):
        return _REFUSED, [
            f"the record contradicts itself: exit code {code} beside {', '.join(sorted(found)) or 'nothing'}"
        ]
    counts = "   ".join(f"{name} {outcomes.count(name)}" for name in sorted(found))
    return code, [*map(_printable, lines), _printable(counts)]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def main(arguments: Sequence[str]) -> int:
    """Print the verdict on each record; return the worst exit code."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(f"Usage: python -m auditor.gate REPORT...\n\n{__doc__}")
        return 0 if arguments else 2
    codes = []
    for each in arguments:
        code, lines = gate(Path(each))
        codes.append(code)
        print("\n  ".join([f"{_printable(each)}: exit {code}", *lines]))
    return next(code for code in _GRAVEST_FIRST if code in codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
