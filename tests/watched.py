"""A process of its own in which many things are tried, and a watch on what they do to the rest of the machine."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

# Of processor time, for one try; and of memory beyond what is there, for all.
SECONDS = 5.0
MEMORY = 1 << 30
_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "subprocess.Popen", "pty.spawn",
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "os.remove", "os.rename", "os.rmdir",
    "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate", "os.kill", "shutil.rmtree", "webbrowser.open",
    "ctypes.dlopen", "urllib.Request", "code.__new__",
)  # fmt: skip


class Watch:
    """An audit hook that stops and remembers what no reader of a file has reason to do: other processes, connections,
    writing, and code that is no file's of this installation. ``free``: the one file that may be written to."""

    def __init__(self, free: Path) -> None:
        self.fired: list[str] = []
        self._free = str(free)
        self._armed = False
        sys.addaudithook(self._hook)

    def arm(self) -> None:
        """From here on it fires."""
        self._armed = True

    def disarm(self) -> None:
        """From here on it does not."""
        self._armed = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed or not self._told(event, arguments):
            return
        self.fired.append(f"{event} {str(arguments)[:200]}")
        raise RuntimeError(f"the watch fired: {event}")

    def _told(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = arguments
            writes = any(c in (mode or "") for c in "wax+") or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            )
            return bool(writes) and str(path) != self._free
        if event == "exec":
            # A module that is imported late is a file of its own, and so is what it makes its classes of.
            return not os.path.isfile(getattr(arguments[0], "co_filename", "")) and not _importing()
        return event in _FORBIDDEN


def _importing() -> bool:
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def outlive(tries: Iterable[Callable[[], str]], folder: Path, free: Path) -> tuple[Counter[str], str]:
    """(how many of the tries ended how, what the process died of or ""), each of them run in a child of its own.

    A try returns how it ended. One that takes more than ``SECONDS`` of processor time ends the process, and so does
    whatever a compiled library does to itself; those before it are counted. What the watch saw is counted as ``run``;
    an error that is not caught, as ``crash`` with its words.
    """
    place = folder / "place"
    place.write_text("{}")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _try_all(tries, place, free)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    counts: Counter[str] = Counter(json.loads(place.read_text()))
    return counts, "" if status == 0 else f"try {counts.total()}: the process ended by {_words(status)}"


def outlive_each(tries: Sequence[Callable[[], str]], folder: Path, free: Path) -> tuple[Counter[str], list[str]]:
    """As :func:`outlive`, with what each process died of that did.

    A try that ends the process is run again in one of its own, whose end is what counts: what the tries before it did
    to a library is not its doing. Those after it are run in the next.
    """
    counts: Counter[str] = Counter()
    deaths: list[str] = []
    while len(tries) > counts.total() + len(deaths):
        some, died = outlive(tries[counts.total() + len(deaths) :], folder, free)
        counts += some
        if died:
            own, died = outlive([tries[counts.total() + len(deaths)]], folder, free)
            counts += own
            deaths += [died] * bool(died)
    return counts, deaths


def _try_all(tries: Iterable[Callable[[], str]], place: Path, free: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    faulthandler.disable()
    # What compiled libraries say of a damaged file is for nobody.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.alarm(600)
    counts: Counter[str] = Counter()
    watch = Watch(free)
    with open(place, "r+") as at:
        for number, one in enumerate(tries):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            watch.arm()
            try:
                ended = one()
            except BaseException as error:  # whatever it is, it should have been a sentence
                ended = f"crash of try {number}: {type(error).__name__}: {str(error)[:300]}"
            watch.disarm()
            if watch.fired:
                ended = f"run in try {number}: {watch.fired.pop()}"
                watch.fired.clear()
            counts[ended] += 1
            at.seek(0)
            at.write(json.dumps(counts))
            at.flush()
    signal.setitimer(signal.ITIMER_PROF, 0)


def _words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return signal.Signals(-code).name if code < 0 else f"code {code}"
