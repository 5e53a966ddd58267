"""XGBoost, LightGBM and CatBoost in pickles: their trees are read by the library, their settings as plain data."""

from __future__ import annotations

import copy
import re
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from auditor.core.errors import MissingExtraError
from auditor.models.files.model_bytes import printable
from auditor.models.files.unpickling import Foreign

_KINDS = {
    "lightgbm": ("basic.Booster", "sklearn.LGBMClassifier", "sklearn.LGBMRegressor"),
    "xgboost": (
        "core.Booster",
        *(f"sklearn.XGB{kind}" for kind in ("Classifier", "Regressor", "RFClassifier", "RFRegressor")),
    ),
    "catboost": ("core.CatBoost", "core.CatBoostClassifier", "core.CatBoostRegressor"),
}
CLASSES = frozenset(f"{library}.{kind}" for library, kinds in _KINDS.items() for kind in kinds)
_PLAIN = (type(None), bool, int, float, str)
# Settings that name a file, or other machines, in any library.
_OF_FILES = re.compile("file|path|model|machine|output|snapshot")


def full_name(instance: object) -> str:
    """The module and name of an object's class."""
    return f"{type(instance).__module__}.{type(instance).__qualname__}"


def make(name: str) -> object:
    """An instance without attributes of one of :data:`CLASSES`. Raises MissingExtraError without its library."""
    library, _, kind = name.partition(".")
    try:
        module = import_module(name.rpartition(".")[0])
    except ImportError:
        raise MissingExtraError(
            f"This file holds a model of {library}, which is not installed: pip install "
            f"'responsible-auditor[{library}]'."
        ) from None
    return object.__new__(getattr(module, kind.rpartition(".")[2]))


def fill(instance: Any, state: dict[str, Any]) -> object:
    """An instance with its trees, read by its library, and its settings; what names files or devices is left out."""
    name = full_name(instance)
    if name == "lightgbm.basic.Booster":
        instance.__setstate__({**state, "_handle": _content(state, "_handle", str), "params": {}})
    elif name == "xgboost.core.Booster":
        instance.__setstate__({"handle": _content(state, "handle", bytearray)})
        instance.set_param({"nthread": 1, "device": "cpu"})
    elif name.startswith("catboost."):
        settings = {key: value for key, value in state.items() if key != "__model" and not key.startswith("_")}
        for setting in ("train_dir", "task_type", "devices", "snapshot_file"):
            settings.pop(setting, None)
        # One that was not fitted, as an ensemble keeps beside the fitted ones, has none.
        trees = {"__model": _content(state, "__model", bytes)} if "__model" in state else {}
        instance.__setstate__({**settings, "allow_writing_files": False, "thread_count": 1, **trees})
    else:
        other = state.get("_other_params", state.get("kwargs")) or {}
        for key, value in other.items():
            if type(key) is not str or not isinstance(value, _PLAIN) or _OF_FILES.search(key):
                raise Foreign(name, f"with the setting {printable(key, 40)!r}")
        instance.__dict__.update(state)
        instance.n_jobs = 1
    return instance


def _content(state: dict[str, Any], key: str, kind: type) -> Any:
    content = state.get(key)
    if type(content) is not kind:
        raise ValueError("a model of boosted trees has no trees")
    return content


def takes_categories(estimator: object) -> bool:
    """Whether XGBoost's trees anywhere in an estimator take pandas' columns of categories.

    Given other columns they take the values for codes of categories, and say nothing.
    """
    seen: set[int] = set()
    parts: list[Any] = [estimator]
    while parts:
        part = parts.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if full_name(part) == "xgboost.core.Booster":
            if "c" in (part.feature_types or ()):
                return True
        elif isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        elif isinstance(part, np.ndarray):
            parts += part.ravel().tolist() if part.dtype == object else []
        else:
            parts += getattr(part, "__dict__", {}).values()
    return False


def answers_by_own_file(estimator: Any) -> bool:
    """Whether an estimator is trees alone that are asked as their library's own file, and not by scikit-learn's means:
    of columns of categories, or of fewer rounds than were fitted."""
    library, _, kind = full_name(estimator).partition(".")
    if library not in _KINDS or kind not in _KINDS[library]:
        return False
    if library == "catboost" or kind == "core.Booster" or kind == "basic.Booster":
        return True
    trees = getattr(estimator, "_Booster", None)
    if trees is None:
        return False
    if library == "lightgbm":
        return bool(trees.pandas_categorical) or (estimator._best_iteration or 0) > 0
    return takes_categories(trees) or estimator.early_stopping_rounds is not None


def native_file(estimator: Any, ending: str | None = None) -> tuple[str, bytes] | None:
    """(library, content of its own file) of an estimator or a booster that is trees alone; else None.

    ``ending``: which of the library's formats.
    """
    library, _, kind = full_name(estimator).partition(".")
    if library not in _KINDS or kind not in _KINDS[library]:
        return None
    own = ending or {"lightgbm": ".txt", "xgboost": ".ubj", "catboost": ".cbm"}[library]
    with TemporaryDirectory() as folder:
        getattr(estimator, "booster_", estimator).save_model(f"{folder}/model{own}")
        return library, Path(folder, f"model{own}").read_bytes()


def with_trees(estimator: Any, trees: Any) -> Any:
    """An estimator of the same library with other trees; of a booster, the trees themselves."""
    if not hasattr(estimator, "classes_") or full_name(estimator) == "catboost.core.CatBoost":
        return trees
    if full_name(estimator).startswith("catboost."):
        made = type(estimator)()
        made.load_model(blob=(native_file(trees) or ("", b""))[1])
        return made
    made = copy.copy(estimator)
    made._Booster = trees
    return made
