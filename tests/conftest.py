"""Shared by all tests: one thread for torch, and the folder of larger real data where there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    """Tiny models are slower on many threads than on one, and sums come out the same on every machine."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder named by AUDITOR_TEST_DATA; skips the test, with its reason, where there is none."""
    folder = os.environ.get("AUDITOR_TEST_DATA")
    if not folder:
        pytest.skip("AUDITOR_TEST_DATA is not set: larger real data are not here")
    if not Path(folder).is_dir():
        pytest.fail(f"AUDITOR_TEST_DATA names {folder!r}, which is no folder")
    return Path(folder)
