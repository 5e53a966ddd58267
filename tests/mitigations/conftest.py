"""The biased world and the model of it that most tests of mitigations start from."""

from __future__ import annotations

import pytest

from auditor.data.audit_data import AuditData
from auditor.models.torch_model import TorchModel
from tests.mitigations.planted_rows import biased_rows, trained


@pytest.fixture(scope="module")
def rows() -> AuditData:
    return biased_rows(3000, 1)


@pytest.fixture(scope="module")
def model(rows: AuditData) -> TorchModel:
    return trained(rows)
