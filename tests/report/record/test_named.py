"""What a report is titled by: a file, a server, or what a model is known by that has neither."""

from __future__ import annotations

import pytest

from auditor.report.record.audit_report import ModelRecord


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (ModelRecord(), "a model in memory"),
        (ModelRecord(path="deep/down/model.pt", format="auditor-model/1"), "model.pt"),
        (ModelRecord(path="C:\\models\\net.onnx", format="ONNX"), "net.onnx"),
        (ModelRecord(path="folder/llm/", format="Hugging Face"), "llm"),
        (ModelRecord(path="http://127.0.0.1:8000/v1", format="endpoint"), "http://127.0.0.1:8000/v1"),
        (ModelRecord(format="recorded predictions"), "recorded predictions"),
        (ModelRecord(format="a generator's files"), "a generator's files"),
    ],
)
def test_a_report_is_titled_by_what_is_known(model: ModelRecord, named: str) -> None:
    assert model.display_name == named
