"""The files that a job needs: all others are inaccessible to the sandboxed process."""

from __future__ import annotations

import glob
import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from auditor.core.files import decode_path
from auditor.data.benchmarks.companions import companion_files
from auditor.loading.job_specs import DataSpec, Job, flag_of_code
from auditor.loading.reserved_packages import ROOT
from auditor.loading.sandbox.landlock import DEVICE, READ, WRITE, Access, Place
from auditor.loading.sandbox.secrets import places_without_secrets

# What Python and the libraries below it look at of the system: programs' own files, not people's.
_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone", "/etc/os-release",
    "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/mime.types", "/etc/fonts", "/etc/ssl/openssl.cnf",
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
    if job.model.code_folder is not None:
        beside.append(Path(job.model.code_folder))
    if job.data is not None and job.data.image is not None:
        # A table of pictures names them by their paths below its own folder.
        beside.append(Path(job.data.path).parent)
    code_runs = flag_of_code(job) is not None
    found += places_without_secrets(list(map(Path, (*_inputs(job), *_edited()))), beside, contents=code_runs)
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


def _inputs(job: Job) -> Iterator[str]:
    for path in (job.model.path, job.model.base):
        if path is not None:
            yield path
            yield from _blobs(Path(path))
    if job.detection is not None and job.model.path is not None:
        # What an exporter writes beside a graph: how its input is made, and what its classes are called.
        yield from (str(Path(job.model.path).parent / name) for name in ("config.json", "preprocessor_config.json"))
    if job.data is not None:
        yield from _files_of(job.data)
    for spec in job.probes:
        yield from _paths_in(spec.options)
    if job.mitigation is not None:
        yield from _paths_in(job.mitigation.options)
    if job.detection is not None:
        yield from map(decode_path, job.detection.files)
    if job.detector_training is not None:
        yield job.detector_training.folder
        yield from (path for path in (job.detector_training.kinds,) if path is not None)
        yield from _paths_in(job.detector_training.options)
    if job.table_training is not None:
        yield decode_path(job.table_training.table.data)


def _blobs(folder: Path) -> Iterator[str]:
    """Where the files of a folder in the Hugging Face cache lie, which are links in the folder itself."""
    blobs = folder.parent.parent / "blobs"
    if folder.parent.name == "snapshots" and blobs.is_dir():
        yield str(blobs)


def _files_of(data: DataSpec) -> Iterator[str]:
    yield from (path for path in (data.path, data.train, data.sensitive_file) if path is not None)


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
        yield from (Path(decode_path(path)).parent for path in (made.out, made.train_out, made.test_out))
    if job.export is not None:
        yield Path(decode_path(job.export.out)).parent
    if job.tasks is not None:
        yield Path(job.tasks)
    for spec in job.probes:
        checkpoint = spec.options.get("checkpoint")
        if isinstance(checkpoint, str) and os.path.isabs(checkpoint):
            os.makedirs(checkpoint, exist_ok=True)
            yield Path(checkpoint)
