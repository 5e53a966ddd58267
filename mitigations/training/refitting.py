"""Refitting of scikit-learn estimators and boosted trees, with equal type and hyperparameters.

A fitted scikit-learn estimator holds all of its hyperparameters, and so do the files of LightGBM and CatBoost. A file
of XGBoost holds the trees and nothing of how they were grown: what is not said is the library's default, which the
notes say.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import ModelError, UsageError, did_you_mean
from auditor.core.randomness import seeded_globals
from auditor.core.rows import FloatArray, IntArray, Rows
from auditor.models.files.model_bytes import printable
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from mitigations.selection_guide import is_estimator
from mitigations.training.retraining import Labelled, check_classifier, refuse_one_class

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.loading.boosted_trees import Boosted
    from auditor.models.audited_model import AuditedModel

Settings = Mapping[str, Any]
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
# Grown by any of them, and not how many: the number of trees is the file's own.
_NAMES_OF_ROUNDS = {"n_estimators": "rounds", "num_boost_round": "rounds", "iterations": "rounds"}


@dataclass(frozen=True, eq=False)
class Refitted:
    """The new model, and notes on its fitting."""

    model: AuditedModel
    notes: tuple[str, ...]


def refit(
    model: AuditedModel,
    rows: Labelled,
    rng: np.random.Generator,
    *,
    weights: FloatArray | None = None,
    places: IntArray | None = None,
    X: Rows | None = None,
    y: IntArray | None = None,
    hyperparameters: Settings | None = None,
    guard: bool = True,
) -> Refitted:
    """An estimator of the same kind fitted on labelled rows.

    weights: (n,) of the rows, by ``sample_weight``. places: those of the rows that are learned from, with repeats; all
    of them once where it is None. X, y: other features and labels of the same rows. hyperparameters: what is to be
    otherwise than it was, as its library names it. guard: whether a model that decides one class for all is refused.

    Raises ModelError for an estimator that cannot be fitted so, and says what can be done with it; UsageError for a
    hyperparameter that it does not have.
    """
    from auditor.loading.boosted_trees import BoostedClassifier
    from auditor.loading.estimators import EstimatorModel

    check_classifier(model)
    inputs: Rows = rows.data.X if X is None else X
    labels = rows.y if y is None else y
    if places is not None:
        from auditor.core.rows import take_rows

        inputs, labels = take_rows(inputs, places), labels[places]
        weights = None if weights is None else weights[places]
    if isinstance(model, EstimatorModel):
        found = _of_scikit_learn(model, inputs, labels, weights, rng, hyperparameters or {})
    elif isinstance(model, BoostedClassifier):
        found = _of_trees(model, inputs, labels, weights, hyperparameters or {})
    else:
        raise ModelError("Only an estimator of scikit-learn or boosted trees is fitted anew.")
    if guard and X is None:
        refuse_one_class(found.model, model, rows.data, instead="use threshold_optimizer")
    return found


def only_for_networks(**options: object) -> None:
    """Raise UsageError for network training options given for an estimator, which has none of them."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"{name} is for networks, and this is an estimator, which is fitted with the hyperparameters that it "
                "had: leave it out, or say --with 'hyperparameters={\"max_depth\": 3}' in the words of its library."
            )


def only_for_estimators(model: AuditedModel, hyperparameters: Settings | None) -> None:
    """Raise UsageError if hyperparameters are given for a network, which is trained by its recipe."""
    if hyperparameters is not None and not is_estimator(model):
        raise UsageError("hyperparameters are an estimator's, and this is a network: leave them out.")


class NetworkOrEstimator(BaseMitigation):
    """A mitigation that trains a network in one way, and refits an estimator in another."""

    hyperparameters: Settings | None

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model of the same kind."""
        only_for_estimators(model, self.hyperparameters)
        if is_estimator(model):
            return self._fit_estimator(model, data, rng)
        return self._train_network(model, data, rng, training)

    def _fit_estimator(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Mitigated:
        raise NotImplementedError

    def _train_network(
        self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training
    ) -> Mitigated:
        raise NotImplementedError


# ---- scikit-learn ----------------------------------------------------------------------------------------------------


def _of_scikit_learn(
    model: Any, X: Rows, y: IntArray, weights: FloatArray | None, rng: np.random.Generator, settings: Settings
) -> Refitted:
    from auditor.loading.estimators import EstimatorModel, input_of
    from auditor.models.audited_model import Provenance

    old = model.estimator
    searched = hasattr(old, "best_estimator_")
    fresh = _cloned(old.best_estimator_ if searched else old, settings)
    labels = old.classes_[y]
    keywords = {} if weights is None else _weight_keywords(fresh, weights)
    with warnings.catch_warnings(record=True) as caught, seeded_globals(rng):
        warnings.simplefilter("always")
        try:
            fresh.fit(input_of(old, model.features, X), labels, **keywords)
        except Exception as error:  # what an estimator raises is its own affair
            raise ModelError(
                f"The estimator cannot be fitted anew on these rows: {printable(error, 300)}. {_otherwise(weights)}"
            ) from error
    said = tuple(dict.fromkeys(printable(w.message, 200) for w in caught))
    unweighed = [text for text in said if "sample_weight" in text or "sample weight" in text]
    if unweighed:
        raise ModelError(f"The estimator does not weigh its rows ({unweighed[0]}). {_otherwise(weights)}")
    if fresh.classes_.tolist() != old.classes_.tolist():
        raise ModelError("The rows do not hold every class that the model knows: add rows of the others.")
    notes = [f"{type(fresh).__name__} fitted anew with the hyperparameters that it had{_but_for(settings)}."]
    if searched:
        notes.append(f"Of the {type(old).__name__}, the estimator that it found is fitted; nothing is searched again.")
    notes += [f"While it was fitted: {text}" for text in said[:3]]
    new = EstimatorModel(
        fresh,
        classes=model.classes,
        features=model.features,
        threshold=None if model.decides_itself else model.threshold,
        provenance=Provenance(notes=tuple(notes)),
    )
    new.said = model.said
    return Refitted(new, tuple(notes))


def _cloned(estimator: Any, settings: Settings) -> Any:
    """An unfitted estimator with the same hyperparameters, in one process, and with no folder that it keeps things in.

    A pipeline's ``memory`` names a folder whose files are unpickled, which no file may ask for.
    """
    from sklearn.base import clone

    try:
        fresh = clone(estimator)
        known = fresh.get_params(deep=True)
        own = [name for name in known if name.rpartition("__")[2] in ("memory", "n_jobs")]
        fresh.set_params(**dict.fromkeys(own))
    except Exception as error:  # a file may leave out what a constructor needs
        raise ModelError(
            f"The estimator cannot be made anew from its hyperparameters: {printable(error, 300)}. {_otherwise(None)}"
        ) from error
    for name in settings:
        if name not in known or name in own:
            near = did_you_mean(name, [key for key in known if key not in own])
            raise UsageError(f"{type(fresh).__name__} has no hyperparameter {name!r}{near or '.'}")
    return fresh.set_params(**settings)


def _weight_keywords(estimator: Any, weights: FloatArray, prefix: str = "") -> dict[str, Any]:
    """The keywords of ``fit`` by which the rows are weighed; of a pipeline its last step weighs them."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return _weight_keywords(last, weights, f"{prefix}{name}__")
    if not has_fit_parameter(estimator, "sample_weight"):
        raise ModelError(f"{type(estimator).__name__} takes no sample_weight. {_otherwise(weights)}")
    return {f"{prefix}sample_weight": weights}


def _otherwise(weights: FloatArray | None) -> str:
    """What takes an estimator that cannot be fitted as asked."""
    if weights is None:
        return "Use threshold_optimizer, a post-processing mitigation, which asks for its scores alone."
    return "Use balanced_resampling, which fits it on rows drawn instead, or threshold_optimizer."


def _but_for(settings: Settings) -> str:
    return f", but for {', '.join(f'{name}={value!r}' for name, value in settings.items())}" if settings else ""


# ---- boosted trees ---------------------------------------------------------------------------------------------------


def _of_trees(model: Any, X: Rows, y: IntArray, weights: FloatArray | None, settings: Settings) -> Refitted:
    from auditor.loading.boosted_trees import BoostedClassifier
    from auditor.models.audited_model import Provenance

    old = model.estimator
    fit = {"XGBoost": _xgboost, "LightGBM": _lightgbm, "CatBoost": _catboost}[old.made_by]
    given = {_NAMES_OF_ROUNDS.get(name, name): value for name, value in settings.items()}
    try:
        trees, unknown = fit(old, old.table(X), y, weights, given)
    except (UsageError, ModelError):
        raise
    except Exception as error:  # each library has errors of its own
        raise ModelError(
            f"{old.made_by} cannot be fitted anew on these rows: {printable(error, 300)}. {_otherwise(None)}"
        ) from error
    notes = [f"{old.made_by} fitted anew with the hyperparameters that its file holds{_but_for(settings)}.", *unknown]
    new = BoostedClassifier(
        replace(old, trees=trees),
        classes=model.classes,
        threshold=None if model.decides_itself else model.threshold,
        provenance=Provenance(notes=tuple(notes)),
    )
    new.said = model.said
    return Refitted(new, tuple(notes))


def _check_hyperparameters(settings: Settings, known_names: frozenset[str], library: str) -> dict[str, Any]:
    for name in settings:
        if name not in known_names and name != "rounds":
            near = did_you_mean(name, known_names)
            raise UsageError(f"{library} has no hyperparameter {name!r} that can be set here{near or '.'}")
    return {name: value for name, value in settings.items() if name != "rounds"}


def _xgboost(
    old: Boosted, rows: Any, y: IntArray, weights: FloatArray | None, settings: Settings
) -> tuple[Any, tuple[str, ...]]:
    xgboost = import_module("xgboost")
    learner = json.loads(old.trees.save_config())["learner"]
    booster = learner["gradient_booster"]
    grown = booster.get("tree_train_param", {})
    scale = learner["objective"].get("reg_loss_param", {}).get("scale_pos_weight", "1")
    stated: dict[str, Any] = {
        "booster": learner["learner_train_param"]["booster"],
        "objective": old.objective,
        "num_parallel_tree": int(booster.get("gbtree_model_param", {}).get("num_parallel_tree", 1)),
        "scale_pos_weight": float(scale),
    }
    if old.n_outputs > 1:
        stated["num_class"] = old.n_outputs
    if grown:
        stated["max_depth"] = max(_depth(json.loads(tree)) for tree in old.trees.get_dump(dump_format="json"))
    known = frozenset([*grown, *stated, "seed", "random_state", "tree_method"])
    own = _check_hyperparameters(settings, known, "XGBoost")
    with xgboost.config_context(verbosity=0):
        trees = xgboost.train(
            {"nthread": 1, **stated, **own},
            xgboost.DMatrix(rows, label=y, weight=weights, enable_categorical=bool(old.categories)),
            num_boost_round=int(settings.get("rounds", old.trees.num_boosted_rounds())),
        )
    if not grown or {"learning_rate", "eta"} & set(own):
        return trees, ()
    defaults = [f"{name} {float(grown[name]):g}" for name in ("learning_rate", "subsample", "reg_lambda")]
    return trees, (
        "A file of XGBoost says the objective, the number of trees and, by the deepest of them, max_depth "
        f"{stated['max_depth']}; how else they were grown it does not hold, and XGBoost's defaults stand in for it "
        f"({', '.join(defaults)}, ...). Say what it was with --with 'hyperparameters={{\"learning_rate\": 0.1}}'.",
    )


def _depth(tree: Mapping[str, Any]) -> int:
    deepest, level = 0, [tree]
    while level := [child for node in level for child in node.get("children", ())]:
        deepest += 1
    return deepest


def _lightgbm(
    old: Boosted, rows: Any, y: IntArray, weights: FloatArray | None, settings: Settings
) -> tuple[Any, tuple[str, ...]]:
    lightgbm = import_module("lightgbm")
    stated = {name: value for name, value in old.trees.params.items() if name in _OF_LIGHTGBM}
    own = _check_hyperparameters(settings, _OF_LIGHTGBM, "LightGBM")
    coded = re.search(r"^\[categorical_feature: ([\d,]+)\]$", old.trees.model_to_string(), re.MULTILINE)
    trees = lightgbm.train(
        {**stated, **own, "num_threads": 1, "verbosity": -1},
        lightgbm.Dataset(
            rows,
            label=y,
            weight=weights,
            # Names are categories already; codes without names are numbers, and have to be called so.
            categorical_feature="auto" if old.categories or coded is None else list(map(int, coded[1].split(","))),
            params={"verbosity": -1},
        ),
        num_boost_round=int(settings.get("rounds", old.trees.current_iteration())),
    )
    return trees, ()


def _catboost(
    old: Boosted, rows: Any, y: IntArray, weights: FloatArray | None, settings: Settings
) -> tuple[Any, tuple[str, ...]]:
    catboost = import_module("catboost")
    stated = {name: value for name, value in old.trees.get_all_params().items() if name in _OF_CATBOOST}
    if stated.get("grow_policy", "SymmetricTree") != "Lossguide":
        stated.pop("max_leaves", None)  # which the depth says already, and only one of both may be said
    own = _check_hyperparameters(settings, _OF_CATBOOST, "CatBoost")
    trees = catboost.CatBoost(
        {
            **stated,
            **own,
            "iterations": int(settings.get("rounds", old.trees.tree_count_)),
            "thread_count": 1,
            "allow_writing_files": False,
            "logging_level": "Silent",
        }
    )
    names = list(old.categories)
    labels = np.asarray(old.trees.classes_)[y]
    trees.fit(catboost.Pool(rows, label=labels, weight=weights, cat_features=names))
    return trees, ()
