"""Formats as the record of an audit names them, without any import that takes time."""

from __future__ import annotations

from typing import Final

BUNDLE_FORMAT = "auditor-model/1"
ONNX_FORMAT: Final = "ONNX model"
FORMAT: Final = "Hugging Face folder"
# Of rows that are audited before there is a model.
NO_MODEL: Final = "no model"
# What rows that were given as an object are called, as a file that the caller never had.
ROWS_IN_MEMORY: Final = "rows-in-memory.parquet"
# Of a model known by the evaluation that somebody else ran; the kind of log follows.
EVALUATION_LOG: Final = "log of an evaluation"
# What makes a folder that of a post-processed model.
RULES_FILE = "postprocessing.json"
# How the file of a model that is fitted anew may end, by the format of the present one.
ENDINGS = {
    BUNDLE_FORMAT: (".pt",),
    "skops": (".skops",),
    "joblib file": (".joblib", ".pkl"),
    "pickle": (".pkl", ".joblib"),
    "XGBoost model": (".json", ".ubj"),
    "LightGBM model": (".txt",),
    "CatBoost model": (".cbm", ".json"),
}
