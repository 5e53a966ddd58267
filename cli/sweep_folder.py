"""The contents of a sweep's folder: each point's model and audit, their inputs, and all attempts."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from auditor.core.errors import UsageError
from auditor.core.files import sha256_of, write_beside
from auditor.core.writable_paths import claim, remove
from auditor.evidence.tradeoff_evidence import inputs_digest
from auditor.loading.job_specs import Job
from auditor.loading.rows.folders import sha256_of_folder
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.energy import EnergyRecord
from auditor.report.record.report_formats import FILE_NAMES
from auditor.run import __version__
from auditor.run.scan_options import Configured
from auditor.run.sweep_tasks import MadePoint
from cli.compare import claim_comparison
from cli.mitigate import BUNDLE, audit_model, make_model
from cli.report_outputs import claim_report, read_report

_POINT_FORMAT = "auditor-tradeoff-point/1"
_TRIED_FORMAT = "auditor-tradeoff-tried/1"
Settings = dict[str, JsonValue]
Prints = dict[str, str]


class Tried:
    """All models ever graded on the evaluation rows in this folder: selection among them needs correction."""

    def __init__(self, path: Path, rows: str, digests: dict[str, list[str]]) -> None:
        self.path = path
        self.rows = rows
        self.tried = digests

    @classmethod
    def from_file(cls, path: Path, rows: str) -> Tried:
        """The stored list; UsageError if the file exists and is no such ledger."""
        tried: dict[str, list[str]] = {}
        if path.exists():
            content = _read_json(path)
            listed = content.get("tried") if content.get("format") == _TRIED_FORMAT else None
            if not isinstance(listed, dict) or not all(isinstance(v, list) for v in listed.values()):
                raise UsageError(f"{path} is no ledger of a sweep: name another folder with --out.")
            tried = {str(k): [str(each) for each in v] for k, v in listed.items()}
        return cls(path, rows, tried)

    def add(self, prints: Prints) -> None:
        """Add a model before it is graded, so that an interrupted look counts too."""
        known = self.tried.setdefault(self.rows, [])
        key = inputs_digest(prints)
        if key not in known:
            known.append(key)
            self.write()

    def write(self) -> None:
        """Write the list; UsageError if the folder is not writable."""
        content = {"format": _TRIED_FORMAT, "tried": self.tried}
        write_beside(self.path, (json.dumps(content, indent=2) + "\n").encode())

    @property
    def graded_models(self) -> list[str]:
        """The models graded on these rows, each by the digest of its inputs."""
        return self.tried.get(self.rows, [])

    @property
    def count(self) -> int:
        """The number of distinct models graded on these rows."""
        return len(self.graded_models)


class PointFolder:
    """A point's folder, by its ``point.json``: the inputs of its model and of its audit.

    ``model``: its model, a file as the present model's, or a folder.
    """

    def __init__(self, folder: Path, model_name: str, content: dict[str, Any]) -> None:
        self.folder = folder
        self.model = folder / model_name
        self.content = content

    @classmethod
    def from_folder(cls, folder: Path, model_name: str) -> PointFolder:
        """The stored state; an invalid file counts as empty, and the point is made again."""
        content = _read_json(folder / "point.json")
        return cls(folder, model_name, content if content.get("format") == _POINT_FORMAT else {})

    def claim(self, *, with_evidence: bool) -> None:
        """Declare, before any work, the outputs in this folder.

        Raises UsageError where one is not ours.
        """
        if with_evidence:
            claim(self.folder / BUNDLE, f"--out/{self.folder.name}/{BUNDLE}")
        if not self.model.is_dir():
            claim(self.model, f"--out/{self.folder.name}/{self.model.name}")
        claim(self.folder / "point.json", f"--out/{self.folder.name}/point.json")
        claim_report(self.folder, ("json", "html"), f"--out/{self.folder.name}")
        claim_comparison(self.folder, f"--out/{self.folder.name}")

    @property
    def notes(self) -> tuple[str, ...]:
        notes = self.content.get("notes")
        return tuple(map(str, notes)) if isinstance(notes, list) else ()

    def check_model(self, prints: Prints) -> tuple[bool, str]:
        """Whether the model exists with these inputs; else the reason to make it again, "" if it is new."""
        return self._check_written("made", prints, self.model, "model_sha256")

    @property
    def inputs(self) -> Prints:
        """The inputs of the model, if it was made."""
        made = self.content.get("made")
        return {str(k): str(v) for k, v in made.items()} if isinstance(made, dict) else {}

    def audited(self, prints: Prints, *, with_evidence: bool = False) -> tuple[AuditReport | None, str]:
        """The audit, if it exists with these inputs; else the reason to make it again."""
        path = self.folder / FILE_NAMES["json"]
        there, why = self._check_written("audited", prints, path, "report_sha256")
        if not there:
            return None, why
        if with_evidence and not self._check_written("audited", prints, self.folder / BUNDLE, "bundle_sha256")[0]:
            return None, " anew, for its evidence was not kept"
        try:
            return read_report(path), ""
        except UsageError:
            return None, " anew, the report being of another version"

    def _check_written(self, entry: str, prints: Prints, path: Path, digest_key: str) -> tuple[bool, str]:
        known = self.content.get(entry)
        if not isinstance(known, dict):
            return False, ""
        changed = [key for key in dict.fromkeys([*prints, *known]) if known.get(key) != prints.get(key)]
        if changed:
            return False, f" anew, since these changed: {', '.join(changed)}"
        if not path.exists() or digest(str(path)) != self.content.get(digest_key):
            return False, f" anew, since {path.name} is not what was written"
        return True, ""

    def make(self, key: str, job: Job, settings: Settings, prints: Prints, max_seconds: float, *, quiet: bool) -> None:
        """Make the model, after removal of results of interrupted attempts or of other inputs."""
        self._clear()
        notes, energy = make_model(key, job, settings, self.model, None, max_seconds, quiet=quiet)
        self._record_model(settings, prints, notes, energy)

    def take(self, point: MadePoint, settings: Settings, prints: Prints) -> None:
        """Store a model made elsewhere, after removal of results of other inputs."""
        self._clear()
        write_beside(self.model, point.content)
        self._record_model(settings, prints, point.notes, point.energy)

    def _record_model(self, settings: Settings, prints: Prints, notes: Sequence[str], energy: EnergyRecord) -> None:
        self.content = {
            "format": _POINT_FORMAT,
            "settings": settings,
            "made": prints,
            "model_sha256": digest(str(self.model)),
            "notes": list(notes),
            "energy": energy.model_dump(mode="json"),
        }
        self._write()

    def audit(self, config: Configured, job: Job, *, quiet: bool) -> AuditReport:
        """Audit the model into the folder; only a complete audit is recorded as done."""
        report = audit_model(config, job, self.folder, quiet=quiet)
        # What crashed or ran out of time is asked again next time.
        if report.refusal is None and not report.summary.not_run:
            self.content = {
                **self.content,
                "format": _POINT_FORMAT,
                "audited": audit_prints(config, job),
                "report_sha256": sha256_of(self.folder / FILE_NAMES["json"]),
            }
            if config.options.bundle is not None:
                self.content["bundle_sha256"] = sha256_of(self.folder / BUNDLE)
            self._write()
        return report

    def _write(self) -> None:
        write_beside(self.folder / "point.json", (json.dumps(self.content, indent=2) + "\n").encode())

    def _clear(self) -> None:
        if self.model.is_dir() and self.content:
            shutil.rmtree(self.model)
        self.content = {}
        for path in (self.folder / "point.json", self.model):
            if not path.is_dir():
                remove(path)
        for left in self.folder.glob(f".{self.model.name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@lru_cache(maxsize=1024)
def _digest_at(path: str, stamp: tuple[int, int, int]) -> str:
    where = Path(path)
    return sha256_of_folder(where) if where.is_dir() else sha256_of(where)


def digest(path: str) -> str:
    """The digest of a file or folder, cached while the file is unchanged."""
    found = os.stat(path)
    # The time of a folder says nothing of the files below it.
    stamp = (found.st_ino, found.st_size, time.time_ns() if os.path.isdir(path) else found.st_mtime_ns)
    return _digest_at(path, stamp)


def _digested(value: Any) -> Any:
    """A specification with every file it names as that file's digest."""
    if isinstance(value, dict):
        return {key: _digested(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_digested(each) for each in value]
    if isinstance(value, str) and os.path.isabs(value) and os.path.exists(value):
        return f"sha256:{digest(value)}"
    return value


def _canonical_json(value: Any) -> str:
    return json.dumps(_digested(value), sort_keys=True, default=str)


def _shared_prints(job: Job) -> Prints:
    assert job.data is not None and job.data.train is not None
    columns = asdict(replace(job.data, path="", train=None))
    return {
        "version of the tool": __version__,
        "seed": str(job.seed),
        "training rows": digest(job.data.train),
        "columns": _canonical_json(columns),
    }


def _model_prints(job: Job) -> str:
    # Where it runs and where code would lie is no input.
    return _canonical_json({k: v for k, v in asdict(job.model).items() if k not in ("device", "code_folder", "mapped")})


def made_prints(key: str, job: Job, settings: Settings) -> Prints:
    return {
        **_shared_prints(job),
        "mitigation": key,
        "options": _canonical_json(settings),
        "present model": _model_prints(job),
    }


def audit_prints(config: Configured, job: Job) -> Prints:
    assert job.data is not None
    options = config.options
    return {
        **_shared_prints(job),
        "model": _model_prints(job),
        "evaluation rows": digest(job.data.path),
        "probes": _canonical_json([asdict(spec) for spec in job.probes]),
        "criteria": _canonical_json([criterion.model_dump() for criterion in config.criteria]),
        "error rate": f"{options.error_rate:g} {options.multiplicity}",
    }
