"""A PostgreSQL of the tests' own, where one is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # its server refuses to run as root
    folder = tmp_path_factory.mktemp("pg")
    if user is not None:
        for parent in (folder, *folder.parents):
            if parent == Path(parent.anchor) or parent.stat().st_uid != 0 or parent == Path("/tmp"):
                break
            parent.chmod(parent.stat().st_mode | 0o055)
        shutil.chown(folder, user)
    binaries, data = found[-1].parent, folder / "data"

    def run(*command: str) -> None:
        subprocess.run(
            [str(binaries / command[0]), *command[1:]],
            user=user,
            check=True,
            capture_output=True,
            cwd=folder,
            timeout=120,
        )

    run("initdb", "-D", str(data), "-A", "trust", "-U", "auditor", "-N")
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    run("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    server = int((data / "postmaster.pid").read_text().splitlines()[0])
    try:
        yield f"postgresql+psycopg://auditor@/postgres?host={folder}"
    finally:
        # By its number: a folder of an earlier run may be gone before the server is.
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGQUIT)
