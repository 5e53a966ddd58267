"""XGBoost, LightGBM and CatBoost: how each one's files are read, asked, written and grown again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import softmax

from auditor.core.errors import DataError, MissingExtraError, UnsupportedError, UsageError
from auditor.core.rows import FloatArray, IntArray
from auditor.data.preprocessing import label_name
from auditor.loading.boosted_trees import Boosted, known_hyperparameters, load_boosted
from auditor.loading.estimators import estimator_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import MORE_THAN_HALF, AuditedModel
from auditor.models.files.model_bytes import Source, printable
from auditor.models.files.pickled_boosters import CLASSES, answers_by_own_file, full_name, native_file, takes_categories

# The newest that onnxmltools writes of all its trees.
_OPSET = 15
# How a truth value may be spelled in a column of categories; CatBoost takes a boolean for a whole number.
_TRUTH_NUMBERS = ("0", "1")
_TRUTH_SPELLINGS = (("False", "True"), ("false", "true"), ("FALSE", "TRUE"), _TRUTH_NUMBERS)
_TRUTH_TEXTS = {text: value for spelling in _TRUTH_SPELLINGS[:-1] for value, text in enumerate(spelling)}
# Rows by which categories are looked up at first.
_FEW = 1000
# What decides how LightGBM and CatBoost grow trees: a file may name paths and machines too, which are not followed.
_OF_LIGHTGBM = frozenset(
    "boosting objective num_class data_sample_strategy num_leaves max_depth learning_rate min_data_in_leaf "
    "min_sum_hessian_in_leaf bagging_fraction pos_bagging_fraction neg_bagging_fraction bagging_freq bagging_seed "
    "feature_fraction feature_fraction_bynode feature_fraction_seed extra_trees extra_seed max_delta_step lambda_l1 "
    "lambda_l2 linear_lambda min_gain_to_split drop_rate max_drop skip_drop xgboost_dart_mode uniform_drop drop_seed "
    "top_rate other_rate min_data_per_group max_cat_threshold cat_l2 cat_smooth max_cat_to_onehot "
    "monotone_constraints monotone_constraints_method monotone_penalty path_smooth linear_tree max_bin "
    "min_data_in_bin bin_construct_sample_cnt data_random_seed use_missing zero_as_missing seed objective_seed "
    "is_unbalance scale_pos_weight sigmoid boost_from_average".split()
)
_OF_CATBOOST = frozenset(
    "loss_function learning_rate depth l2_leaf_reg random_strength bagging_temperature subsample bootstrap_type rsm "
    "grow_policy min_data_in_leaf max_leaves leaf_estimation_method leaf_estimation_iterations "
    "leaf_estimation_backtracking border_count feature_border_type one_hot_max_size nan_mode class_weights "
    "auto_class_weights boosting_type sampling_frequency boost_from_average score_function random_seed "
    "model_size_reg max_ctr_complexity".split()
)
_CODED = re.compile(r"^\[categorical_feature: ([\d,]+)\]$", re.MULTILINE)


@dataclass(frozen=True, eq=False, kw_only=True)
class XGBoost(Boosted):
    """Trees, or a linear booster, of XGBoost.

    ``in_place``: whether its scikit-learn class asks it without a matrix, which sums DART's trees in another order.
    """

    made_by = "XGBoost"
    in_place: bool = False

    @classmethod
    def read(cls, source: Source, spec: ModelSpec) -> Self:
        xgboost = _library("xgboost")
        with xgboost.config_context(verbosity=0):
            trees = xgboost.Booster(params={"nthread": 1})
            trees.load_model(bytearray(source.data))
            learner = json.loads(trees.save_config())["learner"]
            wrapped = trees.attr("scikit_learn") is not None
            if learner["gradient_booster"]["name"] != "gblinear":  # which always answers by all of its rounds
                trees = _best_rounds(trees, source.name)
        features = _columns(trees.feature_names, trees.num_features(), spec, source.name)
        kinds = dict(zip(features, trees.feature_types or [], strict=False))
        named = [name for name, kind in kinds.items() if kind == "c"]
        categories: dict[str, pd.Index[Any] | None] = {}
        if named:
            stored = dict(trees.get_categories(export_to_arrow=True).to_arrow() or [])
            for name in named:
                values = stored.get(name)
                if values is None:
                    raise UnsupportedError(
                        f"{source.name!r} has the categories of {name!r} as codes without names: save it again with "
                        "XGBoost 3.1 or newer, fitted on a pandas column of categories, or audit it with --predict."
                    )
                categories[name] = _learned(values.to_pandas(), name, source.name)
        n = int(learner["learner_model_param"]["num_class"] or 0)
        if int(learner["learner_model_param"].get("num_target", "1")) > 1:
            raise UnsupportedError(f"{source.name!r} predicts several targets at once, which is not supported.")
        objective = str(learner["objective"]["name"])
        # XGBClassifier compares the raw margin with one half, as if it were a probability.
        by_margin = wrapped and objective == "binary:logitraw"
        return cls(
            trees=trees,
            features=features,
            categories=categories,
            n_outputs=max(n, 1),
            objective=objective,
            labels=_numbered(n),
            threshold=float(np.nextafter(_logistic(0.5), np.inf)) if by_margin else MORE_THAN_HALF,
            in_place=wrapped and learner["gradient_booster"]["name"] == "dart",
        )

    def _with_new(
        self, known: pd.Index[Any], codes: dict[str, int | None], new: Sequence[str]
    ) -> tuple[pd.Index[Any], dict[str, int | None]]:
        """Categories that it has not learned go the way of all that a split does not name."""
        try:
            more = known.append(pd.Index(new).astype(known.dtype)) if new else known
        except ValueError:  # a text where it has learned numbers
            raise DataError(
                f"A column of categories holds {printable(new[0], 40)!r}, and the model has learned numbers there, "
                f"such as {', '.join(map(str, known[:8]))}.",
                code="AUD-DATA-VALUES",
            ) from None
        return more, codes | {text: len(known) + i for i, text in enumerate(new)}

    def margins(self, rows: pd.DataFrame) -> Any:
        return self._predicted(rows, margin=True)

    def answers(self, rows: pd.DataFrame) -> Any:
        if self.objective == "multi:softmax":  # its own prediction is a label
            return softmax(self.margins(rows), axis=1)
        found = self._predicted(rows, margin=False)
        return _logistic(found.astype(np.float64)) if self.objective == "binary:logitraw" else found

    def _predicted(self, rows: pd.DataFrame, *, margin: bool) -> Any:
        given = rows if self.trees.feature_names is not None else rows.to_numpy()
        if self.in_place:
            return self.trees.inplace_predict(given, predict_type="margin" if margin else "value")
        matrix = import_module("xgboost").DMatrix(given, enable_categorical=bool(self.categories))
        return self.trees.predict(matrix, output_margin=margin)

    def as_file(self, ending: str) -> bytes:
        return bytes(self.trees.save_raw(raw_format="ubj" if ending == ".ubj" else "json"))

    def as_onnx(self) -> bytes:
        trees = self.trees.copy()
        trees.feature_names = None  # its converter takes columns by number alone
        return _by_onnxmltools("convert_xgboost", trees, len(self.features))

    def grow(
        self, rows: pd.DataFrame, y: IntArray, weights: FloatArray | None, settings: Mapping[str, Any]
    ) -> tuple[Any, tuple[str, ...]]:
        xgboost = import_module("xgboost")
        learner = json.loads(self.trees.save_config())["learner"]
        booster = learner["gradient_booster"]
        grown = booster.get("tree_train_param", {})
        scale = learner["objective"].get("reg_loss_param", {}).get("scale_pos_weight", "1")
        stated: dict[str, Any] = {
            "booster": learner["learner_train_param"]["booster"],
            "objective": self.objective,
            "num_parallel_tree": int(booster.get("gbtree_model_param", {}).get("num_parallel_tree", 1)),
            "scale_pos_weight": float(scale),
        }
        if self.n_outputs > 1:
            stated["num_class"] = self.n_outputs
        if grown:
            stated["max_depth"] = max(_depth(json.loads(tree)) for tree in self.trees.get_dump(dump_format="json"))
        own = known_hyperparameters(
            settings, frozenset([*grown, *stated, "seed", "random_state", "tree_method"]), self.made_by
        )
        # Trees that are grown on categories that these do not know would know them by other codes.
        rows = rows.assign(**{name: rows[name].cat.set_categories(known) for _, name, known in self.learned_levels()})
        with xgboost.config_context(verbosity=0):
            trees = xgboost.train(
                {"nthread": 1, **stated, **own},
                xgboost.DMatrix(rows, label=y, weight=weights, enable_categorical=bool(self.categories)),
                num_boost_round=int(settings.get("rounds", self.trees.num_boosted_rounds())),
            )
        if not grown or {"learning_rate", "eta"} & set(own):
            return trees, ()
        defaults = [f"{name} {float(grown[name]):g}" for name in ("learning_rate", "subsample", "reg_lambda")]
        return trees, (
            "A file of XGBoost says the objective, the number of trees and, by the deepest of them, max_depth "
            f"{stated['max_depth']}; how else they were grown it does not hold, and XGBoost's defaults stand in for it "
            f"({', '.join(defaults)}, ...). Say what it was with --with 'hyperparameters={{\"learning_rate\": 0.1}}'.",
        )


def _best_rounds(trees: Any, name: str) -> Any:
    """The rounds that XGBClassifier and XGBRegressor answer by after early stopping, as trees of their own.

    Booster.predict takes all of them. Raises UnsupportedError where the file was saved from a Booster, and does not say
    which of the two is meant.
    """
    best = trees.attr("best_iteration")
    if best is None or int(best) + 1 >= trees.num_boosted_rounds():
        return trees
    if trees.attr("scikit_learn") is None:
        raise UnsupportedError(
            f"{name!r} is a Booster that stopped early: of its {trees.num_boosted_rounds()} rounds the first "
            f"{int(best) + 1} were best, and it does not say by which it is to answer. Save "
            "booster[: booster.best_iteration + 1] for the best ones, or all of them after "
            "booster.set_attr(best_iteration=None)."
        )
    short = trees[: int(best) + 1]
    # What a slice has lost are the names of categories.
    content, whole = (json.loads(bytes(one.save_raw("json"))) for one in (short, trees))
    _inner(content)["cats"] = _inner(whole)["cats"]
    short.load_model(bytearray(json.dumps(content).encode()))
    return short


def _logistic(margin: Any) -> Any:
    """Probabilities of raw margins."""
    return 1.0 / (1.0 + np.exp(-margin))


def _inner(content: Any) -> Any:
    """The trees in the JSON of a model, which DART has one level deeper."""
    booster = content["learner"]["gradient_booster"]
    return booster.get("gbtree", booster)["model"]


def _depth(tree: Mapping[str, Any]) -> int:
    deepest, level = 0, [tree]
    while level := [child for node in level for child in node.get("children", ())]:
        deepest += 1
    return deepest


class LightGBM(Boosted):
    """Trees of LightGBM."""

    made_by = "LightGBM"
    onnx_takes_codes = True

    @classmethod
    def read(cls, source: Source, spec: ModelSpec) -> Self:
        lightgbm = _library("lightgbm")
        text = source.data.decode("utf-8")
        stated = re.search(r"^objective=(\S+)", text, re.MULTILINE)
        if stated is None:
            raise UnsupportedError(f"{source.name!r} says no objective: audit it with --predict.")
        trees = lightgbm.Booster(model_str=text)
        own = trees.feature_name()
        unnamed = own == [f"Column_{i}" for i in range(len(own))]
        features = _columns(None if unnamed else own, trees.num_feature(), spec, source.name)
        places = _CODED.search(text)
        coded = [features[int(i)] for i in places[1].split(",")] if places else []
        known = trees.pandas_categorical or []
        if known and len(coded) != len(known):
            raise UnsupportedError(
                f"{source.name!r} has categories and does not say of which columns: audit it with --predict."
            )
        return cls(
            trees=trees,
            features=features,
            # Without the names of pandas' categories, the codes themselves are the column's values.
            categories={name: _learned(values, name, source.name) for name, values in zip(coded, known, strict=True)}
            if known
            else {},
            n_outputs=trees.num_model_per_iteration(),
            objective=stated[1],
            labels=_numbered(trees.num_model_per_iteration()),
        )

    def margins(self, rows: pd.DataFrame) -> Any:
        return self.trees.predict(rows, raw_score=True)

    def answers(self, rows: pd.DataFrame) -> Any:
        return self.trees.predict(rows)

    def as_file(self, ending: str) -> bytes:
        return str(self.trees.model_to_string()).encode()

    def as_onnx(self) -> bytes:
        return _by_onnxmltools("convert_lightgbm", self.trees, len(self.features), zipmap=False)

    def grow(
        self, rows: pd.DataFrame, y: IntArray, weights: FloatArray | None, settings: Mapping[str, Any]
    ) -> tuple[Any, tuple[str, ...]]:
        lightgbm = import_module("lightgbm")
        stated = {name: value for name, value in self.trees.params.items() if name in _OF_LIGHTGBM}
        own = known_hyperparameters(settings, _OF_LIGHTGBM, self.made_by)
        coded = _CODED.search(self.trees.model_to_string())
        trees = lightgbm.train(
            {**stated, **own, "num_threads": 1, "verbosity": -1},
            lightgbm.Dataset(
                rows,
                label=y,
                weight=weights,
                # Names are categories already; codes without names are numbers, and have to be called so.
                categorical_feature="auto" if self.categories or coded is None else list(map(int, coded[1].split(","))),
                params={"verbosity": -1},
            ),
            num_boost_round=int(settings.get("rounds", self.trees.current_iteration())),
        )
        return trees, ()


@dataclass(frozen=True, eq=False, kw_only=True)
class CatBoost(Boosted):
    """Trees of CatBoost.

    ``truth_spellings``: of each column of categories, how the truth values that it has learned are spelled.
    """

    made_by = "CatBoost"
    own_background = True
    truth_spellings: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, source: Source, spec: ModelSpec) -> Self:
        catboost = _library("catboost")
        trees = catboost.CatBoost()
        if source.data[:1] == b"{":  # which it reads from a file alone
            with TemporaryDirectory() as folder:
                Path(folder, "model").write_bytes(source.data)
                trees.load_model(f"{folder}/model", format="json")
        else:
            trees.load_model(blob=source.data)
        other = [kind for kind in ("text", "embedding") if getattr(trees, f"get_{kind}_feature_indices")()]
        if other:
            raise UnsupportedError(
                f"{source.name!r} takes columns of {other[0]}s, which is not supported: use --predict."
            )
        own = list(trees.feature_names_)
        unnamed = own == [str(i) for i in range(len(own))]
        features = _columns(None if unnamed else own, len(own), spec, source.name)
        params = trees.get_all_params()
        labels = [label_name(label) for label in trees.classes_]
        metadata, stated = trees.get_metadata(), "binclass_probability_threshold"
        least = float(metadata[stated]) if stated in metadata else 0.5
        return cls(
            trees=trees,
            features=features,
            categories={features[i]: None for i in trees.get_cat_feature_indices()},
            n_outputs=max(1, len(labels) if len(labels) > 2 else 1),
            objective=str(params.get("loss_function", "")),
            labels=tuple(labels) or _numbered(2),
            threshold=float(np.nextafter(least, np.inf)),
        )

    def table(self, X: Any) -> pd.DataFrame:
        """The rows in the library's form. Raises DataError for truth values that may be two categories."""
        rows = super().table(X)
        truths = [name for name in self.categories if rows[name].isin(_TRUTH_TEXTS).any()]
        for name in truths:
            if name not in self.truth_spellings:
                others = [other for other in truths if other != name]
                found = self._known_spellings(rows[:_FEW], name, others) or self._known_spellings(rows, name, others)
                if found:
                    self.truth_spellings[name] = found
        return rows.assign(**{name: self._spelled(name, rows[name]) for name in truths})

    def _known_spellings(self, rows: pd.DataFrame, name: str, others: Sequence[str]) -> list[tuple[str, str]]:
        """The spellings of truth values that the model answers otherwise than a category that it cannot know.

        ``others``: further columns of truth values, as a category may count only beside those of another column.
        """
        found = []
        for beside in _TRUTH_SPELLINGS if others else _TRUTH_SPELLINGS[:1]:
            respelled = {text: beside[value] for text, value in _TRUTH_TEXTS.items()}
            asked = rows.assign(**{other: rows[other].replace(respelled) for other in others})
            unknown = self._raw(asked.assign(**{name: "\x00"}))
            found += [
                spelling
                for spelling in _TRUTH_SPELLINGS
                if any((self._raw(asked.assign(**{name: text})) != unknown).any() for text in spelling)
            ]
        return [spelling for spelling in _TRUTH_SPELLINGS if spelling in found]

    def _spelled(self, name: str, values: pd.Series[Any]) -> pd.Series[Any]:
        """A column with its truth values spelled as the model has learned them. Raises DataError where that is open."""
        known = self.truth_spellings.get(name, [])
        respelled = {}
        for text in set(values) & set(_TRUTH_TEXTS):
            learned = {spelling[_TRUTH_TEXTS[text]] for spelling in known}
            if len(learned) > 1 and (text not in learned or _TRUTH_NUMBERS in known):
                raise DataError(
                    f"Column {name!r} holds {text!r}, and the model has learned {' and '.join(sorted(learned))} there: "
                    "write the column's values as 0 and 1 or as the texts that it was fitted on, or audit the model "
                    "with --predict.",
                    code="AUD-DATA-VALUES",
                )
            respelled[text] = text if text in learned or not learned else learned.pop()
        return values.replace(respelled)

    def margins(self, rows: pd.DataFrame) -> Any:
        return self.trees.predict(rows, prediction_type="RawFormulaVal")

    def answers(self, rows: pd.DataFrame) -> Any:
        # As CatBoostClassifier and CatBoostRegressor answer: a CatBoost of a file would give the logarithm of a count.
        counts = self.objective.startswith(("Poisson", "Tweedie"))
        numbers = "Exponent" if counts else "RawFormulaVal"
        return self.trees.predict(rows, prediction_type=numbers if self.is_regression else "Probability")

    def decided(self, rows: pd.DataFrame) -> IntArray:
        places = {label: i for i, label in enumerate(self.labels)}
        found = self.trees.predict(rows, prediction_type="Class")
        return np.asarray([places[label_name(label)] for label in np.ravel(found).tolist()], np.int64)

    def as_file(self, ending: str) -> bytes:
        return self._saved(ending.removeprefix("."))

    def as_onnx(self) -> bytes:
        return self._saved("onnx")

    def _saved(self, format: str) -> bytes:
        with TemporaryDirectory() as folder:
            self.trees.save_model(f"{folder}/model", format=format)
            return Path(folder, "model").read_bytes()

    def grow(
        self, rows: pd.DataFrame, y: IntArray, weights: FloatArray | None, settings: Mapping[str, Any]
    ) -> tuple[Any, tuple[str, ...]]:
        catboost = import_module("catboost")
        stated = {name: value for name, value in self.trees.get_all_params().items() if name in _OF_CATBOOST}
        if stated.get("grow_policy", "SymmetricTree") != "Lossguide":
            stated.pop("max_leaves", None)  # which the depth says already, and only one of both may be said
        trees = catboost.CatBoost(
            {
                **stated,
                **known_hyperparameters(settings, _OF_CATBOOST, self.made_by),
                "iterations": int(settings.get("rounds", self.trees.tree_count_)),
                "thread_count": 1,
                "allow_writing_files": False,
                "logging_level": "Silent",
            }
        )
        labels = np.asarray(self.trees.classes_)[y]
        trees.fit(catboost.Pool(rows, label=labels, weight=weights, cat_features=list(self.categories)))
        return trees, ()


LIBRARIES: dict[str, type[Boosted]] = {library.made_by: library for library in (XGBoost, LightGBM, CatBoost)}


def estimator_of_any_library(
    estimator: Any, source: Source, spec: ModelSpec, *, format: str, loaded_by: str, notes: tuple[str, ...] = ()
) -> AuditedModel:
    """An unpickled estimator as an audited model: boosted trees with categories as their library's own file would be.

    Raises what :func:`load_boosted` and :func:`estimator_model` raise.
    """
    native = native_file(estimator) if answers_by_own_file(estimator) else None
    if native is not None:
        library = next(kind for name, kind in LIBRARIES.items() if name.lower() == native[0])
        return load_boosted(
            replace(source, data=native[1]), library, spec, pickled=estimator, format=format, notes=notes
        )
    if full_name(estimator) not in CLASSES and takes_categories(estimator):
        raise UnsupportedError(
            f"{source.name!r} holds an XGBoost model that takes pandas' columns of categories within another "
            "estimator, where it would take a file's values for their codes: audit it with --predict, or encode "
            "them in the pipeline."
        )
    return estimator_model(estimator, source, spec, format=format, loaded_by=loaded_by, notes=notes)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"This is a model of {name}, which is not installed: pip install 'responsible-auditor[{name}]'."
        ) from None


def _by_onnxmltools(convert: str, trees: Any, width: int, **options: Any) -> bytes:
    try:
        converters = import_module("onnxmltools.convert")
    except ImportError:
        raise MissingExtraError(
            "onnxmltools exports this model, and is not installed: pip install 'responsible-auditor[onnx]'."
        ) from None
    matrix = import_module("onnxmltools.convert.common.data_types").FloatTensorType([None, width])
    made = getattr(converters, convert)(trees, initial_types=[("X", matrix)], target_opset=_OPSET, **options)
    return bytes(made.SerializeToString())


def _learned(values: Sequence[Any], column: str, file: str) -> pd.Index[Any]:
    """The categories of a column as its library knows them. Raises UnsupportedError where two of them read alike."""
    known: pd.Index[Any] = pd.Index(values)
    twice = known.map(str)
    if twice.has_duplicates:
        raise UnsupportedError(
            f"{file!r} was fitted on a column {column!r} that has two categories that read "
            f"{printable(twice[twice.duplicated()][0], 40)!r}, a number and a text: audit it with --predict, or fit it "
            "on a column of one type."
        )
    return known


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(max(n, 2)))


def _columns(names: Sequence[str] | None, count: int, spec: ModelSpec, file_name: str) -> tuple[str, ...]:
    found = tuple(names) if names else spec.features
    if found is None:
        raise UsageError(
            f"{file_name} takes {count} columns and does not name them: add --features a,b in their order."
        )
    if len(found) != count:
        raise UsageError(f"--features names {len(found)} columns, but the model takes {count}.")
    return found
