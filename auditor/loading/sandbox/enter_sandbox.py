"""Entering the sandbox with the files that a job needs, and the refusals if no sandbox is available.

All other files are inaccessible to the sandboxed process, private keys and password files among them. A rule of
Landlock opens a folder with all that is below it and can take nothing out again: where there is a secret, what lies
beside it is opened one by one.
"""

from __future__ import annotations

import ast
import glob
import os
import platform
import re
import site
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from auditor.core.errors import UsageError
from auditor.core.files import decode_path, table_place
from auditor.data.benchmarks.accompanying_files import companion_files
from auditor.loading.import_finders import ROOT
from auditor.loading.job_specs import DataSpec, Job, flag_of_code, modules_of_code
from auditor.loading.sandbox import landlock, seccomp
from auditor.loading.sandbox.landlock import DEVICE, READ, WRITE, Access, Place
from auditor.models.files.model_folder import is_beside
from auditor.report.record.sandbox_state import SandboxState

_NAMES = re.compile(
    r"\.env.*|.*\.env(\..*)?|[._]netrc|\.ssh|\.aws|\.azure|\.gnupg|\.kube|\.docker|\.pgpass|\.pypirc|\.npmrc|"
    r"\.git-?(config|credentials)|\.s3cfg|\.boto|\.my\.cnf|\.vault-token|\..*_history|stored_tokens|secrets\.toml|"
    r"(application_default_)?credentials\.json|kubeconfig|id_(rsa|dsa|ecdsa|ed25519)(?!.*\.pub$).*|"
    r".*\.(key|ppk|p12|pkcs12|pfx|jks|kdbx|tfstate|pem\..*)",
    re.IGNORECASE,
)
# What programs keep for themselves, a token among it. A file in there may be one of the user's by another name.
_OF_PROGRAMS = re.compile(r"\.(git|cache|config|local|huggingface|kaggle|streamlit|terraform)", re.IGNORECASE)
# Not whatever names such a header: a key follows.
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|\s)+(?:[A-Za-z0-9+/]{16}|[A-Z][A-Za-z-]+: )"
)
_LARGEST_KEY = 1 << 16
_MOST_ENTRIES = 2_000_000
_Inode = tuple[int, int]


def places_without_secrets(
    folders: Sequence[Path], beside: Sequence[Path], *, contents: bool, closed: Sequence[str] = ()
) -> list[Place]:
    """The readable parts of named files and folders, and of folders ``beside`` them.

    Of the latter hidden entries may not be read either: tokens and histories lie there. A secret under a second name is
    closed by that name too, and so are the ``closed`` files. ``contents``: whether files are looked into, since code
    will run that could read any. Raises UsageError for more files than can be looked through.
    """
    search = _Search(contents, closed)
    while True:
        known = len(search.linked)
        found = [place for folder in folders for place in search.whole_or_parts(folder, hidden=True)]
        found += [place for folder in beside for place in search.parts(folder)]
        if len(search.linked) == known:
            return found


def _holds_private_key(path: str | Path) -> bool:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_KEY:
            return False
        with open(path, "rb") as file:
            return _PRIVATE_KEY.search(file.read(_LARGEST_KEY)) is not None
    except OSError:  # what cannot be read here cannot be read afterwards
        return False


class _Search:
    """``linked``: the secrets that have a second name somewhere."""

    def __init__(self, contents: bool, closed: Sequence[str]) -> None:
        self.linked: set[_Inode] = set()
        self._contents = contents
        self._closed = {(found.st_dev, found.st_ino) for found in map(os.stat, filter(os.path.exists, closed))}
        self._entries = 0

    def whole_or_parts(self, folder: Path, *, hidden: bool) -> list[Place]:
        """The folder as one place, where nothing in it is closed, or else what is in it."""
        if self._closed and self._is_named_closed(folder):
            return []
        parts = self._below(folder, hidden=hidden)
        return [Place(folder, READ)] if parts is None else parts

    def parts(self, folder: Path) -> list[Place]:
        """What is in a folder and not hidden. What a link leads to is open where it lies, or is not.

        Of the root of everything, only its files and Python packages.
        """
        at_root = folder == Path(folder.anchor)
        found = [Place(folder, Access.READ_DIR)]
        for entry in self._entries_of(folder):
            package = os.path.exists(os.path.join(entry.path, "__init__.py"))
            if self._is_closed(entry, hidden=False) or (at_root and not package and not entry.is_file()):
                continue
            if not entry.is_symlink():
                inside = entry.is_dir() and self._below(Path(entry.path), hidden=False)
                found += inside or [Place(Path(entry.path), READ)]
        return found

    def _below(self, folder: Path, *, hidden: bool) -> list[Place] | None:
        """None where all of it may be read. What a link leads to is open where it lies, or is not."""
        found, whole = [Place(folder, Access.READ_DIR)], True
        for entry in self._entries_of(folder):
            if self._is_closed(entry, hidden=hidden):
                whole = False
            elif entry.is_dir(follow_symlinks=False):
                inner = self._below(Path(entry.path), hidden=hidden)
                whole = whole and inner is None
                found += [Place(Path(entry.path), READ)] if inner is None else inner
            elif not entry.is_symlink():
                found.append(Place(Path(entry.path), READ))
        return None if whole else found

    def _entries_of(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            return []
        self._entries += len(found)
        if self._entries > _MOST_ENTRIES:
            raise UsageError(
                f"In {str(folder)!r} and beside it are more than {_MOST_ENTRIES:,} files, too many to look for keys "
                "among them before anything may read there: start the command in a folder with fewer."
            )
        return found

    def _is_named_closed(self, path: str | os.PathLike[str]) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) in self._closed

    def _is_closed(self, entry: os.DirEntry[str], *, hidden: bool) -> bool:
        if self._closed and self._is_named_closed(entry.path):
            return True
        secret = _NAMES.fullmatch(entry.name) is not None
        named = secret or bool(_OF_PROGRAMS.fullmatch(entry.name)) or (entry.name.startswith(".") and not hidden)
        if entry.is_symlink():
            return named
        if entry.is_dir(follow_symlinks=False):
            self.linked.update(_linked_below(entry.path) if secret else ())
            return named
        if named:
            self.linked.update(_linked(entry.path))
            return True
        return (bool(self.linked) and not self.linked.isdisjoint(_linked(entry.path))) or (
            self._contents and _holds_private_key(entry.path)
        )


def _linked(path: str) -> set[_Inode]:
    """The file, where it has another name."""
    try:
        found = os.lstat(path)
    except OSError:
        return set()
    return {(found.st_dev, found.st_ino)} if found.st_nlink > 1 else set()


def _linked_below(folder: str) -> set[_Inode]:
    files = (os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)
    return set[_Inode]().union(*map(_linked, files))


# What Python and the libraries below it look at of the system: programs' own files, not people's.
_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone", "/etc/os-release",
    "/etc/nsswitch.conf", "/etc/mime.types", "/etc/fonts", "/etc/ssl/openssl.cnf",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/filesystems", "/proc/sys/vm",
    "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm",
    "/dev/zero", "/dev/random", "/dev/urandom",
)  # fmt: skip
# A driver is spoken to by requests to its devices, and its library reads what the kernel says of them.
_ACCELERATORS = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/dxg", "/dev/kfd", "/dev/dri/*")
_OF_ACCELERATORS = ("/sys", "/proc/driver/nvidia", "/proc/devices", "/proc/modules")


def places_of(job: Job, scratch: Path) -> tuple[Place, ...]:
    """All paths that the job's process may open, with access rights; ``scratch``: its work folder."""
    packages = _python()
    found = [Place(path, READ) for path in (*map(Path, _SYSTEM), *packages)]
    found += [Place(Path("/dev/null"), DEVICE)]
    # A project's own folder on the import path holds more than packages.
    imported = dict.fromkeys([ROOT, *(Path(path) for path in sys.path if path)])
    beside = [path for path in imported if not any(map(path.is_relative_to, packages))]
    if job.data is not None and job.data.image is not None:
        # A table of pictures names them by their paths below its own folder.
        beside.append(Path(job.data.path).parent)
    code_runs = flag_of_code(job) is not None
    named = [*map(Path, (*_inputs_of_model(job), *_other_inputs(job), *_edited()))]
    if job.model.code_folder is not None:
        # What it is called must be known to be imported; what else lies there is nobody's to read.
        found.append(Place(Path(job.model.code_folder), Access.READ_DIR))
        named += files_of_modules(Path(job.model.code_folder), modules_of_code(job))
    found += places_without_secrets(named, beside, contents=code_runs, closed=job.closed)
    # A link in it leads nowhere but where it may be read; in a folder that is handed on it could lead the parent.
    found += [Place(scratch, WRITE | Access.MAKE_SYM), *(Place(folder, WRITE) for folder in _outputs(job))]
    devices = accelerators(job)
    found += [Place(Path(path), DEVICE) for path in devices]
    found += [Place(Path(path), READ) for path in _OF_ACCELERATORS if devices]
    return tuple(found)


def accelerators(job: Job) -> list[str]:
    """The device nodes of graphics cards, if the job may use one."""
    if job.model.device == "cpu":
        return []
    return sorted(path for pattern in _ACCELERATORS for path in glob.glob(pattern))


def _python() -> list[Path]:
    """Where Python and its packages lie."""
    found = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *site.getsitepackages()]
    found += [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    named = map(Path, sys.path)
    return [*map(Path, found), *(path for path in named if path.name in ("site-packages", "dist-packages"))]


def _edited() -> Iterator[str]:
    """What is installed to be edited lies elsewhere; setuptools writes where into the module of a finder."""
    for finder in sys.meta_path:
        module = str(getattr(finder, "__module__", ""))
        if module.startswith("__editable__"):
            yield from map(str, getattr(sys.modules.get(module), "MAPPING", {}).values())


def job_of_code(job: Job) -> Job:
    """What the process is told in which the code of a job answers, which may open nothing else that the job names."""
    return Job(
        model=job.model,
        data=None,
        probes=(),
        seed=0,
        limits=job.limits,
        allow_unsandboxed=job.allow_unsandboxed,
        modules=tuple(modules_of_code(job)),
        closed=tuple(_other_inputs(job)),
    )


def files_of_modules(folder: Path, modules: Iterable[str]) -> list[Path]:
    """The files and packages in a folder that modules are made of: theirs, and those that they import."""
    found, pending = dict[Path, None](), [name.partition(".")[0] for name in modules]
    while pending:
        name = pending.pop()
        package = folder / name
        own = [package] if package.is_dir() else [folder / f"{name}.py", *folder.glob(f"{name}.*.so")]
        for path in own:
            if path.exists() and path not in found:
                found[path] = None
                pending += _imported_by(path)
    return list(found)


def _imported_by(path: Path) -> Iterator[str]:
    """The top-level modules that Python files name in their imports."""
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        try:
            tree = ast.parse(file.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (each.name.partition(".")[0] for each in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def _inputs_of_model(job: Job) -> Iterator[str]:
    for path in (job.model.path, job.model.base):
        if path is not None:
            yield path
            yield from _blobs(Path(path))


def _other_inputs(job: Job) -> Iterator[str]:
    if job.model.path is not None and (job.detection is not None or job.model.path.lower().endswith(".onnx")):
        # What an exporter writes beside a graph: how its input is made, what its classes are called, and its tensors.
        graph = Path(job.model.path)
        yield from (str(graph.parent / name) for name in ("config.json", "preprocessor_config.json"))
        with suppress(OSError):
            yield from (str(each) for each in graph.parent.iterdir() if is_beside(each.name, graph.name))
    if job.data is not None:
        yield from _files_of(job.data)
    for spec in job.probes:
        yield from _paths_in(spec.options)
    if job.mitigation is not None:
        yield from _paths_in([job.mitigation.options, job.mitigation.asked_rows])
    if job.detection is not None:
        yield from map(decode_path, job.detection.files)
    if job.detector_training is not None:
        yield job.detector_training.folder
        yield from (path for path in (job.detector_training.kinds,) if path is not None)
        yield from _paths_in(job.detector_training.options)
    if job.table_training is not None:
        yield decode_path(job.table_training.table.data)


def _blobs(folder: Path) -> Iterator[str]:
    """Where the files of a folder lie that are links in the folder itself: Hugging Face's cache, and git-annex."""
    places = [folder / ".git" / "annex" / "objects"]
    if folder.parent.name == "snapshots":
        places.append(folder.parent.parent / "blobs")
    yield from (str(place) for place in places if place.is_dir())


def _files_of(data: DataSpec) -> Iterator[str]:
    beside = data.check_predictions if data.check_predictions and Path(data.check_predictions).is_absolute() else None
    for path in (data.path, data.train, data.sensitive_file, beside):
        if path is not None:
            place, _ = table_place(path)
            yield str(place)
            yield from _blobs(place)


def _paths_in(value: object) -> Iterator[str]:
    """Every absolute path among options, ``NAME:path`` too, and what is read beside a benchmark's file of that name.

    The root of everything is none, but a separator.
    """
    if isinstance(value, str):
        for text in (value, value.partition(":")[2]):
            if text.startswith("/") and len(Path(os.path.normpath(text)).parts) > 1 and "\0" not in text:
                yield text
                yield from _blobs(Path(text))
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _paths_in(each)
            if isinstance(each, str) and each.startswith("/"):
                # A link there could lead to anything of the user's.
                yield from (str(file) for file in companion_files(str(name), Path(each)) if not file.is_symlink())
    elif isinstance(value, Iterable):
        yield from (path for each in value for path in _paths_in(each))


def _outputs(job: Job) -> Iterator[Path]:
    """Folders of the job's own in which it writes; what is kept of it the parent takes from there."""
    if job.mitigation is not None:
        yield Path(job.mitigation.out).parent
        yield from (Path(path).parent for path in (job.mitigation.checkpoint,) if path is not None)
    if job.detection is not None and job.detection.out is not None:
        yield Path(job.detection.out).parent
    if job.detector_training is not None:
        yield Path(job.detector_training.out).parent
    if job.table_training is not None:
        made = job.table_training
        outputs = (made.out, made.train_out, made.test_out, made.predictions_out)
        yield from (Path(decode_path(path)).parent for path in outputs)
    if job.export is not None:
        yield Path(decode_path(job.export.out)).parent
    if job.tasks is not None:
        yield Path(job.tasks)
    for spec in job.probes:
        checkpoint = spec.options.get("checkpoint")
        if isinstance(checkpoint, str) and os.path.isabs(checkpoint):
            os.makedirs(checkpoint, exist_ok=True)
            yield Path(checkpoint)


ASKED = "--allow-unsandboxed"


def enter(job: Job, scratch: Path, *, to_fork: bool = False) -> SandboxState:
    """Confine this process permanently to the job's needs, and return the active mechanisms.

    To be called before anything of the user's is opened, and while there is one thread: Landlock binds the thread that
    calls it and what that starts. ``no_new_privs`` must be set. ``scratch``: the folder that it works in.
    ``to_fork``: whether the process that answers is still to be forked, before :func:`confine_after_fork`. Where the
    job goes without, its process still cannot leave its group, by which it is killed.
    """
    if sys.platform != "linux":
        return SandboxState(why=f"{sys.platform} has none that this tool knows")
    if job.allow_unsandboxed:
        if seccomp.supported():
            with suppress(OSError):
                seccomp.stay_in_group()
        return SandboxState(why=f"{ASKED} was given")
    known = landlock.version()
    why = [] if known else ["this kernel has no Landlock, or it is turned off"]
    try:
        if known:
            places = places_of(job, scratch)
            if to_fork:
                # A fork can only be confined further, and where its own files will be in /proc nobody knows yet.
                places += (*places_of(job_of_code(job), scratch), Place(Path("/proc"), READ))
            landlock.restrict(places, known)
    except OSError as error:
        known = 0
        why.append(f"this system does not allow {error.strerror}")
    denies = seccomp.supported()
    try:
        if denies:
            seccomp.install(with_devices=bool(accelerators(job)), may_fork=to_fork)
        else:
            why.append(f"the system calls of {platform.machine()} are not known to this tool")
    except OSError as error:
        denies = False
        why.append(f"this system does not allow {error.strerror}")
    return SandboxState(landlock=known, seccomp=denies, why="; ".join(why))


def confine_after_fork(job: Job, scratch: Path) -> None:
    """Take from this process what it was left for a fork: it will neither be forked again nor reach the other one."""
    if not job.allow_unsandboxed and sys.platform == "linux":
        if known := landlock.version():
            landlock.restrict(places_of(job, scratch), known)
        if seccomp.supported():
            seccomp.install(with_devices=bool(accelerators(job)))


def refuse_code(job: Job, state: SandboxState) -> None:
    """Raise UsageError if the job would run code of the file or the user without confinement."""
    if state.is_confined or job.allow_unsandboxed:
        return
    flag = flag_of_code(job)
    if flag is not None:
        raise UsageError(
            f"{flag} runs code, and there is no kernel sandbox to run it in: {state.why}. Leave it out, or add {ASKED} "
            "to run it with your rights."
        )
