"""Checks of a scikit-learn estimator before it is asked: compiled code takes what it gets from a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from auditor.core.errors import DamagedError


def check_trees(estimator: Any, file_name: str) -> None:
    """Raise ModelError for a decision tree with nodes or features out of range, and for inconsistent support vectors or
    categories.

    scikit-learn walks them in compiled code without looking: one number that is off crashes the interpreter.
    """
    for owner in _objects(estimator):
        trees = [member for member in _members(owner) if type(member).__name__ in ("Tree", "TreePredictor")]
        for tree in trees:
            width = getattr(owner, "n_features_in_", None)
            if width is None and type(tree).__name__ == "Tree":
                raise DamagedError(
                    f"{file_name!r} holds a doctored decision tree: it says not how many columns it takes."
                )
            problem = tree_problem(tree, width) if type(tree).__name__ == "Tree" else _predictor_problem(tree)
            if problem:
                raise DamagedError(f"{file_name!r} holds a doctored decision tree: {problem}.")
        _check_ensemble(owner, file_name)
        for problem in (_vectors_problem(owner), _bins_problem(owner)):
            if problem:
                raise DamagedError(f"{file_name!r} holds a doctored {type(owner).__name__}: {problem}.")


def _vectors_problem(owner: Any) -> str:
    """What is wrong with the support vectors of libsvm, which takes the length of each array from another."""
    parts = vars(owner)
    if "_n_support" not in parts or "support_" not in parts:
        return ""
    counts, support, width = parts["_n_support"], parts["support_"], getattr(owner, "n_features_in_", None)
    n, kinds = len(support), len(counts)
    pairs = kinds * (kinds - 1) // 2
    vectors, fitted = parts["support_vectors_"], parts["shape_fit_"]
    classifies = getattr(owner, "_impl", "") in ("c_svc", "nu_svc")
    if kinds < 2 or (np.asarray(counts) < 0).any() or (classifies and int(np.sum(counts)) != n):
        return "it has another number of support vectors than it counts"
    if parts["_dual_coef_"].shape != (kinds - 1, n) or np.shape(parts["_intercept_"]) != (pairs,):
        return "it has coefficients of another number"
    if any(len(parts[name]) not in (0, 1, pairs) for name in ("_probA", "_probB")):
        return "it has probabilities of another number"
    if len(parts["_probA"]) != len(parts["_probB"]) or (len(parts["_probA"]) == 1 != pairs and classifies):
        return "it has probabilities of another number"
    precomputed = owner.kernel == "precomputed" or callable(owner.kernel)
    if precomputed and ((np.asarray(support) < 0).any() or (np.asarray(support) >= fitted[0]).any()):
        return "it asks for a row that is not there"
    if not precomputed and n and vectors.shape != (n, width):
        return "it has support vectors of another width"
    return ""


def _bins_problem(owner: Any) -> str:
    """What is wrong with the categories of histogram gradient boosting, which are places in 256 bits."""
    bins = vars(owner).get("_bin_mapper")
    if bins is None:
        return ""
    width, known = len(bins.is_categorical_), bins.bin_thresholds_
    if len(known) != width or any(p.nodes["feature_idx"].max() >= width for p in _flat(vars(owner)["_predictors"])):
        return "it asks for a column that is not there"
    for categorical, values in zip(bins.is_categorical_, known, strict=True):
        if categorical and ((np.asarray(values) < 0).any() or (np.asarray(values) > 255).any()):
            return "it asks for a category that is not there"
    return ""


def _check_ensemble(owner: Any, file_name: str) -> None:
    """Forests hand their rows to every tree unseen, so each must take as many columns as the whole.

    Gradient boosting adds the trees of a stage to the columns of its first guess, in compiled code without looking.
    """
    width = getattr(owner, "n_features_in_", None)
    stages = vars(owner).get("estimators_")
    if isinstance(stages, np.ndarray) and stages.ndim == 2 and hasattr(owner, "_raw_predict_init"):
        guess = owner._raw_predict_init(np.zeros((1, stages[0, 0].n_features_in_)))
        if np.shape(guess) != (1, stages.shape[1]):
            raise DamagedError(f"{file_name!r} holds a doctored ensemble: its trees predict another number of outputs.")
    # Bagging hands each member columns of its own, by a call that checks their number; no forest does.
    if hasattr(owner, "estimators_features_") and not hasattr(owner, "_validate_X_predict"):
        return
    for member in _flat(vars(owner).get("estimators_")):
        if hasattr(member, "tree_") and getattr(member, "n_features_in_", None) != width:
            raise DamagedError(f"{file_name!r} holds a doctored ensemble: its trees take different numbers of columns.")
    for predictor in _flat(vars(owner).get("_predictors")):
        nodes = predictor.nodes
        if width is None or (nodes["feature_idx"][nodes["is_leaf"] == 0] >= width).any():
            raise DamagedError(f"{file_name!r} holds a doctored decision tree: it asks for a column that is not there.")


def tree_problem(tree: Any, width: object) -> str:
    """The problem of a decision tree's nodes, or ""; ``width``: the number of its owner's columns."""
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    n, place = tree.node_count, np.arange(tree.node_count)
    inner = left != -1
    children = np.concatenate([left[inner], right[inner]])
    if n < 1 or len(left) != n or len(tree.value) != n:
        return "it has no nodes, or values of another number"
    if (children <= np.tile(place[inner], 2)).any() or (children >= n).any():
        return "a node lies outside of it"
    if (
        (feature[inner] < 0).any()
        or (feature[inner] >= tree.n_features).any()
        or (width is not None and tree.n_features != width)
    ):
        return "it asks for a column that is not there"
    return ""


def _predictor_problem(tree: Any) -> str:
    nodes = tree.nodes
    names = set(nodes.dtype.names or ()) if isinstance(nodes, np.ndarray) and nodes.ndim == 1 else set()
    if not {"left", "right", "is_leaf", "feature_idx", "is_categorical", "bitset_idx"} <= names or not len(nodes):
        return "it has no nodes"
    inner = nodes["is_leaf"] == 0
    children = np.concatenate([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    if (children <= np.tile(np.flatnonzero(inner), 2)).any() or (children >= len(nodes)).any():
        return "a node lies outside of it"
    if (nodes["feature_idx"][inner] < 0).any():
        return "it asks for a column that is not there"
    categorical = inner & (nodes["is_categorical"] != 0)
    if (
        nodes["bitset_idx"][categorical] >= min(len(tree.raw_left_cat_bitsets), len(tree.binned_left_cat_bitsets))
    ).any() or any(np.shape(bits)[1:] != (8,) for bits in (tree.raw_left_cat_bitsets, tree.binned_left_cat_bitsets)):
        return "it asks for a category that is not there"
    return ""


def _members(owner: Any) -> list[Any]:
    return [m for value in getattr(owner, "__dict__", {}).values() for m in _flat(value)]


def _flat(value: Any) -> Iterator[Any]:
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if isinstance(item, (list, tuple, dict, np.ndarray)):
            # A file may hold a list that contains itself.
            if id(item) in seen:
                continue
            seen.add(id(item))
        if isinstance(item, (list, tuple)):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, np.ndarray) and item.dtype == object:
            stack.extend(item.ravel().tolist())
        elif item is not None:
            yield item


def _objects(root: Any) -> Iterator[Any]:
    """Every object with attributes that can be reached from ``root``, each once."""
    stack, seen = [root], set()
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, type) or not hasattr(item, "__dict__"):
            continue
        seen.add(id(item))
        yield item
        stack.extend(_members(item))
