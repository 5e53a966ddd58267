from __future__ import annotations
from auditor.intake.archive import open_archive
from auditor.intake.bundle import load_bundle
from auditor.intake.source import read_source
from auditor.intake.weights import pickle_record
from auditor.errors import ModelError
from auditor.model import AuditedModel
from auditor.specs import ModelSpec

def identify(path): return "?"

def load_model(spec: ModelSpec) -> AuditedModel:
    source = read_source(spec.path)
    archive = open_archive(source.data, source.name)
    record = pickle_record(archive)
    if record is None: raise ModelError("not a bundle")
    return load_bundle(source, archive, record, spec)
