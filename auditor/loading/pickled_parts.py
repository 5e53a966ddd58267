"""Compiled parts of scikit-learn and scipy in a pickle, rebuilt or checked, since they do not validate input."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from auditor.loading.estimator_checks import tree_problem
from auditor.models.files.model_bytes import printable
from auditor.models.files.pickled_arrays import whole
from auditor.models.files.unpickling import Foreign

METRICS = {"Euclidean": "euclidean", "Manhattan": "manhattan", "Chebyshev": "chebyshev", "Minkowski": "minkowski"}
LOSSES = (
    "AbsoluteError", "ExponentialLoss", "HalfBinomialLoss", "HalfGammaLoss", "HalfMultinomialLoss", "HalfPoissonLoss",
    "HalfSquaredError", "HalfTweedieLoss", "HalfTweedieLossIdentity", "HuberLoss", "PinballLoss",
)  # fmt: skip
# Compiled losses, made of up to two numbers.
COMPILED_LOSSES = frozenset(
    {
        *(f"sklearn._loss._loss.Cy{name}" for name in LOSSES),
        *(
            f"sklearn.linear_model._sgd_fast.{name}"
            for name in ("EpsilonInsensitive", "Hinge", "ModifiedHuber", "SquaredEpsilonInsensitive", "SquaredHinge")
        ),
    }
)


class Metric:
    """A search tree's metric by its name, with Minkowski's p once its state is read."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.p = 2.0


def resolved(name: str) -> Any:
    """The object of a listed name, which must be defined in that module itself."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError):
        raise Foreign(name, "which this version of scikit-learn does not have") from None
    return found


def make_loss(name: str, arguments: tuple[Any, ...]) -> Any:
    """A compiled loss from its numbers."""
    kind = name.replace("__pyx_unpickle_", "")
    if kind not in COMPILED_LOSSES:
        raise Foreign(name)
    if "__pyx_unpickle_" in name:
        arguments = arguments[2] if len(arguments) > 2 and type(arguments[2]) is tuple else ()
    if len(arguments) > 2 or not all(type(a) in (int, float) for a in arguments):
        raise ValueError("a loss is made of what are no numbers")
    return resolved(kind)(*map(float, arguments))


def needs_nothing(instance: Any, state: Any) -> Any:
    """An object that is complete after construction.

    Raises Foreign for a state of it.
    """
    if state not in (None, (), {}):
        raise Foreign(f"a state for {type(instance).__name__}", "which takes none")
    return instance


def make_tree(n_features: Any, n_classes: Any, n_outputs: Any) -> Any:
    """A decision tree without nodes; it reads the stated number of class counts."""
    from sklearn.tree._tree import Tree

    outputs = whole(n_outputs, 1, 1 << 20)
    if not isinstance(n_classes, np.ndarray) or n_classes.shape != (outputs,) or n_classes.dtype.kind != "i":
        raise ValueError("a decision tree has no classes")
    if (n_classes < 1).any() or (n_classes > 1 << 24).any():
        raise ValueError("a decision tree has no classes")
    return Tree(whole(n_features, 0, 1 << 31), n_classes.astype(np.intp), outputs)


def filled_tree(tree: Any, state: Any) -> Any:
    """A decision tree with all nodes in range."""
    nodes, values = state["nodes"], state["values"]
    if not all(isinstance(part, np.ndarray) and part.flags.c_contiguous for part in (nodes, values)):
        raise ValueError("a decision tree has no nodes")
    count = whole(state["node_count"], 1)
    if nodes.shape != (count,) or values.shape[:1] != (count,):
        raise ValueError("a decision tree has another number of nodes than it claims")
    whole(state["max_depth"], 0, 1 << 31)
    tree.__setstate__({name: state[name] for name in ("max_depth", "node_count", "nodes", "values")})
    problem = tree_problem(tree, None)
    if problem:
        raise ValueError(f"a decision tree is doctored: {problem}")
    return tree


def filled_search(instance: Any, state: Any) -> Any:
    """A search tree rebuilt from its own rows, since its index is memory without checks."""
    data, leaf_size, metric = state[0], whole(state[4], 1, 1 << 31), state[11]
    weights = state[12] if len(state) > 12 else None
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.dtype.kind != "f" or not isinstance(metric, Metric):
        raise ValueError("a search tree has no rows")
    if weights is not None and (not isinstance(weights, np.ndarray) or weights.shape != (len(data),)):
        raise ValueError("a search tree has weights of another number")
    extra = {"p": metric.p} if metric.kind == "minkowski" else {}
    fresh = type(instance)(data, leaf_size=leaf_size, metric=metric.kind, sample_weight=weights, **extra)
    instance.__setstate__(fresh.__getstate__())
    return instance


def filled_sparse(instance: Any, state: Any) -> Any:
    """A sparse matrix with checked indices, which compiled code follows in products."""
    parts = [state[name] for name in ("data", "indices", "indptr")]
    if not all(type(part) is np.ndarray and part.ndim == 1 and part.dtype.kind in "biufc" for part in parts):
        raise ValueError("a sparse matrix has no values")
    shape = tuple(whole(length) for length in state["_shape"])
    fresh = type(instance)(tuple(parts), shape=shape, copy=True)
    fresh.check_format(full_check=True)
    instance.__dict__.update(fresh.__dict__)
    return instance


def filled_spline(instance: Any, state: Any) -> Any:
    """A rebuilt spline, whose constructor checks its knots."""
    fresh = type(instance)(
        state.get("_t", state.get("t")),
        state.get("_c", state.get("c")),
        whole(state["k"], 0, 64),
        extrapolate=state["extrapolate"],
    )
    if state.get("axis", 0) != 0:
        raise ValueError("a spline has another axis")
    instance.__dict__.update(fresh.__dict__)
    return instance


def only_checks(state: Mapping[str, Any]) -> bool:
    """Whether a FunctionTransformer has no function, numpy's own arithmetic of one number, or scikit-learn's array
    check, as in gradient boosting."""
    function, inverse = state.get("func"), state.get("inverse_func")
    checks = isinstance(function, partial) and _is_check(function.func)
    if checks:
        return inverse is None
    plain = all(each is None or (isinstance(each, np.ufunc) and each.nin == 1) for each in (function, inverse))
    return plain and not state.get("kw_args") and not state.get("inv_kw_args")


def _is_check(function: Any) -> bool:
    from sklearn.utils.validation import check_array

    return function is check_array


def partial_check(function: Any) -> Any:
    """``partial(check_array)``, as in gradient boosting with categories."""
    if not _is_check(function):
        raise Foreign("functools.partial", f"of {printable(getattr(function, '__name__', function))}")
    return partial(function)


def filled_partial(instance: Any, function: Any, arguments: Any, keywords: Any, attributes: Any) -> Any:
    """``check_array`` with its settings; the state of a partial function could replace the function."""
    if not _is_check(function) or arguments != () or attributes not in (None, {}) or type(keywords) is not dict:
        raise Foreign("functools.partial", "of another function than it was made of")
    plain = (type(None), bool, str, type, np.dtype)
    for key, value in keywords.items():
        if type(key) is not str or not all(isinstance(v, plain) for v in (value if type(value) is list else [value])):
            raise Foreign("functools.partial", "with settings that are none")
    instance.__setstate__((function, (), keywords, None))
    return instance
