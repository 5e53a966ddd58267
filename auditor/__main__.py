"""Entry point of the command ``auditor``: imports its own packages, never those of the current folder."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

from auditor.core.errors import UsageError
from auditor.loading.import_finders import claim_own_packages, pass_over_settings


def main() -> None:
    """Run the command line and exit with its code."""
    # Nearly all that a short command makes stays to its end: it is not looked through for garbage two hundred times.
    gc.set_threshold(200_000)
    try:
        claim_own_packages()
        pass_over_settings()
    except UsageError as error:
        print(f"auditor: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    # By its name: what stands above this floor is nothing that this floor may know.
    try:
        import_module("cli.commands").app()
    finally:
        # Nor three times more by an interpreter that goes away with all of it.
        gc.freeze()


if __name__ == "__main__":
    main()
