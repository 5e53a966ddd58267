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

_HUGE = 2 << 20
_MADV_COLLAPSE = 25
MODULES = (
    "scipy.special", "auditor.run.start", "auditor.run.serve", "auditor.run.child", "auditor.run.table_training",
    "pandas", "pyarrow.parquet", "scipy.stats", "torch",
    "transformers", "probes", "mitigations",
)  # fmt: skip
# What most jobs import once they run; not what one kind of file needs, whose import in the sandbox is a test of it.
OF_JOBS = (
    "transformers.modeling_utils", "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto", "captum.attr", "sklearn.ensemble", "sklearn.inspection",
    "sklearn.linear_model", "sklearn.neural_network", "sklearn.pipeline", "fairlearn.metrics", "scipy.optimize",
    "scipy.sparse",
)  # fmt: skip


def serve(channel: socket.socket, prepared: str | None = None) -> None:
    """Forks one measuring process a request, until nobody asks any more; ``prepared``: a script that is run before."""
    for name in MODULES:
        importlib.import_module(name)
    if prepared is not None:
        runpy.run_path(prepared)
    else:
        for name in OF_JOBS:
            importlib.import_module(name)
        importlib.import_module("sklearn.utils").all_estimators()
        for package in ("auditor.intake", "auditor.model", "probes", "mitigations"):
            _whole(package)
    # What is shared is not copied because somebody looked whether it is needed.
    gc.collect()
    gc.freeze()
    in_huge_pages()
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
            become(json.loads(message), *descriptors, channel)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


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


def become(asked: dict[str, object], stdin: int, log: int, writer: int, channel: socket.socket) -> None:
    """What ``python -I -m auditor.run.start`` is, with its imports done; does not return."""
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
    sys.argv = ["auditor.run.start", str(writer)]
    code = 0
    try:
        from auditor.run import start

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


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
