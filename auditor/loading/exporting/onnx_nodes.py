"""A builder of ONNX graphs: nodes, constants, and names of intermediate values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import MissingExtraError
from auditor.models.files.onnx_graphs import OPSET as OPSET
from auditor.models.files.onnx_graphs import OPSET_ML as OPSET_ML

if TYPE_CHECKING:
    import onnx

# Whole expressions and pieces of text are operators since 20, and onnxruntime 1.17 knows them.
IR_VERSION = 9
ML = "ai.onnx.ml"
FLOAT, DOUBLE, INT64, STRING = 1, 11, 7, 8


class Nodes:
    """Nodes in execution order; ``taken``: input and output names, not available for intermediate values."""

    def __init__(self, used_names: Sequence[str]) -> None:
        try:
            import onnx
        except ImportError:
            raise MissingExtraError(
                "To write an ONNX model takes onnx: pip install 'responsible-auditor[onnx]'."
            ) from None
        self._onnx = onnx
        self._taken = frozenset(used_names)
        self._n = 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.ml_opset = OPSET_ML

    def add(
        self,
        operator: str,
        *inputs: str,
        output_name: str | None = None,
        domain: str = "",
        unused_outputs: int = 0,
        **attributes: Any,
    ) -> str:
        """A node; returns the name of its first output, after which come some that are unused."""
        outputs = [output_name or self._name(), *(self._name() for _ in range(unused_outputs))]
        self.nodes.append(self._onnx.helper.make_node(operator, list(inputs), outputs, domain=domain, **attributes))
        return outputs[0]

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """A constant tensor; returns its name."""
        name = self._name()
        array = np.asarray(values, dtype)
        if array.dtype.kind in "OU":
            flat: Any = [str(text).encode() for text in array.ravel()]
            tensor = self._onnx.helper.make_tensor(name, STRING, array.shape, flat)
        else:
            tensor = self._onnx.numpy_helper.from_array(array, name)
        self.constants.append(tensor)
        return name

    def numbers(self, values: npt.ArrayLike) -> str:
        """A constant of double precision."""
        return self.constant(values, np.float64)

    def places(self, values: npt.ArrayLike) -> str:
        """A constant of whole numbers."""
        return self.constant(values, np.int64)

    def looked_up(self, texts: str, table: dict[str, int]) -> str:
        """(n, 1) table positions of texts (n, 1), -1 for texts outside the table."""
        return self.add(
            "LabelEncoder", texts, domain=ML, keys_strings=list(table), values_int64s=list(table.values()),
            default_int64=-1,
        )  # fmt: skip

    def model(
        self, inputs: dict[str, int], outputs: dict[str, tuple[int, tuple[int | str, ...]]], properties: dict[str, str]
    ) -> bytes:
        """The whole file. ``inputs``: element types of the columns, each (n, 1). ``outputs``: element types and shapes.
        ``properties``: what stands in its metadata."""
        helper = self._onnx.helper
        graph = helper.make_graph(
            self.nodes,
            "audited_model",
            [helper.make_tensor_value_info(name, kind, ("rows", 1)) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
            initializer=self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, self.ml_opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="auditor")
        helper.set_model_props(model, properties)
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _name(self) -> str:
        self._n += 1
        name = f"t{self._n}"
        return self._name() if name in self._taken else name
