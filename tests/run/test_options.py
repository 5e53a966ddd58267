"""Lists of names in options: commas divide them, and quotes keep a comma in a name."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from pydantic import ValidationError

from auditor.loading.job_specs import DataSpec, ModelSpec, RecordedSpec
from auditor.run.option_parsers import names_in
from auditor.run.scan import data_spec, model_spec
from auditor.run.scan_options import ScanOptions, flags
from tests import ROOT
from tests.quantifiers import all_of, none_of


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ["a", "b"]),
        (" a , b ,", ["a", "b"]),
        ('age,"income, net"', ["age", "income, net"]),
        ('"a ""b"" c", d', ['a "b" c', "d"]),
        ('5" pipe,b', ['5" pipe', "b"]),
        ("", []),
        (",", []),
    ],
)
def test_names_are_read_as_a_line_of_csv(text: str, names: list[str]) -> None:
    assert names_in(text) == names
    assert ScanOptions.from_values({"features": text}).features == (tuple(names) or None)


def test_what_is_a_list_already_holds_names_as_they_are() -> None:
    options = ScanOptions.from_values({"features": ["income, net", "age"]})
    assert options.features == ("income, net", "age")
    assert ScanOptions.from_values(options.json_values()).features == options.features


def test_quotes_that_do_not_end_are_said() -> None:
    with pytest.raises(ValidationError, match="is no list of names"):
        ScanOptions.from_values({"classes": '"a,b'})


# What the specs say beside the options of a scan: made of several, or known only to the process that does the work.
OF_SPECS_ALONE = {
    ModelSpec: {"path", "endpoint", "code_folder", "mapped"},
    DataSpec: {"path", "recorded", "labels", "reference_groups", "roles"},
    RecordedSpec: {"is_log", "rows_alone"},
}


@pytest.mark.parametrize("spec", OF_SPECS_ALONE)
def test_a_field_of_a_spec_is_an_option_of_the_same_type_or_is_listed_here(spec: type) -> None:
    own = {each.name for each in fields(spec)}
    assert own - set(flags()) == OF_SPECS_ALONE[spec]
    of_spec, of_options = get_type_hints(spec), get_type_hints(ScanOptions)
    # What arguments hold is JSON, which an option takes as it is typed.
    assert all_of(of_spec[name] == of_options[name] for name in own & set(flags()) - {"architecture_args"})


def test_every_option_that_a_spec_has_reaches_it(tmp_path: Path) -> None:
    for name in ("model", "base", "train", "rows", "side"):
        (tmp_path / name).write_text("a")
    said = {
        "model": str(tmp_path / "model"), "base": str(tmp_path / "base"), "task": "classification", "classes": "a,b",
        "outputs": "logits", "threshold": 0.3, "architecture": "own:Net", "architecture_args": {"n": 1},
        "predict": "own:f", "generate": "own:g", "allow_code": True, "trust_pickle": True, "features": "c,d",
        "device": "cuda", "dtype": "float16", "device_map": "auto",
        "predictions": str(tmp_path / "rows"), "score": ["s"], "predicted": "p", "loss": "l", "generated": "w",
        "train": str(tmp_path / "train"), "target": "y", "positive": "a", "sensitive": ["sex"], "bins": ["sex=1,2"],
        "sensitive_file": str(tmp_path / "side"), "join_on": "id", "text": "t", "image": "i", "cluster": "k",
        "weight": "v", "copies_are_real": True, "cluster_at_most": 5, "weight_at_most": 9.0,
    }  # fmt: skip
    options = ScanOptions.from_values(said)
    model, data = model_spec(options), data_spec(options)
    assert data.recorded is not None
    assert (model.path, data.path) == (options.model, options.predictions)
    unsaid = {"stream", "check_predictions"}  # which no recorded answers go with
    for spec in (model, data, data.recorded):
        shared = {each.name for each in fields(spec)} & set(flags()) - unsaid
        assert all_of(getattr(spec, name) == getattr(options, name) for name in shared)
        assert all_of(getattr(spec, name) != getattr(ScanOptions(), name) for name in shared)
    rows = {"data": str(tmp_path / "rows")}
    assert data_spec(ScanOptions.from_values({**rows, "stream": True})).stream
    assert data_spec(ScanOptions.from_values({**rows, "check_predictions": "c"})).check_predictions == "c"


def test_no_command_words_anew_what_an_option_of_a_scan_says() -> None:
    words = {flag.help for flag in flags().values()}
    sources = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "cli").glob("*.py"))]
    constants = [node.value for source in sources for node in ast.walk(source) if isinstance(node, ast.Constant)]
    assert none_of(value in words for value in constants if isinstance(value, str))
