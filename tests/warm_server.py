"""The process that measuring processes of tests are forked from; tests/warm_child.py starts it and talks to it."""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

OURS = ("auditor", "probes", "mitigations")
_HUGE = 2 << 20
_MADV_COLLAPSE = 25
MODULES = (
    "scipy.special", "auditor.run.child_start", "auditor.run.child_jobs",
    "auditor.run.table_training",
    "pandas", "pyarrow.parquet", "scipy.stats", "torch",
    "transformers", "probes", "mitigations",
)  # fmt: skip
# What most jobs import once they run; not what one kind of file needs, whose import in the sandbox is a test of it. To
# import skops takes longer than most jobs: a test of a real start does it instead (tests/run/test_isolate.py).
OF_JOBS = (
    "transformers.modeling_utils", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "captum.attr", "sklearn.ensemble", "sklearn.inspection",
    "sklearn.linear_model", "sklearn.neural_network", "sklearn.pipeline", "fairlearn.metrics", "scipy.optimize",
    "scipy.sparse", "pyarrow.pandas_compat", "torch.utils.serialization.config", "skops.io",
)  # fmt: skip


def serve(channel: socket.socket) -> None:
    """Imports everything, and forks one measuring process a request, until nobody asks any more."""
    for name in (*MODULES, *OF_JOBS):
        importlib.import_module(name)
    for package in (
        "auditor.loading",
        "auditor.models",
        "auditor.loading.rows",
        "auditor.detection",
        "probes",
        "mitigations",
    ):
        _whole(package)
    _build_schemas()
    # What is shared is not copied because somebody looked whether it is needed.
    gc.collect()
    gc.freeze()
    in_huge_pages()
    answer(channel)


def answer(channel: socket.socket) -> None:
    """Forks what is asked for: a measuring process, or another that forks them, on a channel of its own.

    That one runs a script before the first of them.
    """
    while True:
        message, ancillary, _, _ = channel.recvmsg(1 << 16, socket.CMSG_SPACE(3 * 4))
        if not message:
            return
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        between = os.fork()
        if not between:
            # The process that asked is the nearest that takes in orphans, so it becomes this one's parent.
            if os.fork():
                os._exit(0)
            asked = json.loads(message)
            if "prepared" in asked:
                prepare(asked, *descriptors, channel)
            else:
                become(asked, *descriptors, channel)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def prepare(asked: dict[str, Any], own: int, channel: socket.socket) -> None:
    """Answers on a channel of its own once the script has run; does not return."""
    code = 0
    try:
        while os.getppid() != asked["parent"]:
            time.sleep(0.001)
        channel.send(str(os.getpid()).encode())
        channel.close()
        runpy.run_path(asked["prepared"])
        answer(socket.socket(fileno=own))
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)


def in_huge_pages() -> None:
    """Moves this process's memory into huge pages: what a fork copies is its tables of pages, and they are most of it.

    A kernel that cannot, does not.
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, mode, _, _, inode, *_ = line.split()
        first, end = (int(address, 16) for address in place.split("-"))
        if mode.startswith("rw") and inode == "0":
            for start in range(-(-first // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
                madvise(start, _HUGE, _MADV_COLLAPSE)


def _whole(package: str) -> None:
    """Every module of a package of ours, but for those whose extra is not here."""
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        try:
            importlib.import_module(found.name)
        except ImportError:
            continue


def _build_schemas() -> None:
    """What a process puts off until it reads or writes the first of a kind, which would be in every fork."""
    from pydantic import BaseModel

    from auditor.run.child_start import jobs
    from auditor.run.job_messages import MESSAGES

    def build(kind: type[BaseModel]) -> None:
        for below in kind.__subclasses__():
            if below.__module__.partition(".")[0] in OURS:
                below.model_rebuild()
            build(below)

    build(BaseModel)
    MESSAGES.rebuild()
    jobs()


def become(asked: dict[str, object], stdin: int, log: int, writer: int, channel: socket.socket) -> None:
    """What ``python -I -m auditor.run.child_start`` is, with its imports done; does not return."""
    while os.getppid() != asked["parent"]:
        time.sleep(0.001)
    os.setsid()
    channel.send(str(os.getpid()).encode())
    channel.close()
    for descriptor, place in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, place)
    os.close(stdin)
    os.close(log)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[arg-type]
    tempfile.tempdir = None
    sys.argv = ["auditor.run.child_start", str(writer)]
    if "record" in asked:
        record(asked)
    code = 0
    try:
        from auditor.run import child_start as start

        start.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(code & 0xFF)


def record(asked: dict[str, object]) -> None:
    """Writes every function that this process calls from here on, for the test that asked."""
    recorder = runpy.run_path(str(Path(__file__).with_name("recorder.py")))
    # Opened before the sandbox, which allows no other file to be written.
    file = recorder["open_lines"](asked["record"])
    recorder["Calls"](file, str(asked["test"]).removesuffix(" (call)")).start()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
