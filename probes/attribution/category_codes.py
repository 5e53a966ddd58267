"""A table as integer codes of its distinct values, for numeric libraries, and the decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.rows import FloatArray
from probes.probe_inputs import as_frame

if TYPE_CHECKING:
    import pandas as pd

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Coded:
    """A table as codes of each column's distinct values, with decoding; sample, background: (n, d) codes.

    ``levels``: the distinct values of each column in its own type. ``columns``: names of the model's table, None where
    it takes an array.
    """

    names: tuple[str, ...]
    sample: FloatArray
    background: FloatArray
    levels: tuple[Any, ...]
    columns: pd.Index[Any] | None

    @classmethod
    def from_samples(cls, model: AuditedModel, sample: AuditData, background: AuditData) -> Coded:
        """Codes over the values of both."""
        import pandas as pd

        both = pd.concat([as_frame(part.X, model.features) for part in (sample, background)], ignore_index=True)
        pairs = [pd.factorize(both.iloc[:, i].array, use_na_sentinel=False) for i in range(both.shape[1])]
        table = np.stack([codes for codes, _ in pairs], axis=1).astype(np.float64)
        return cls(
            names=tuple(str(c) for c in both.columns),
            sample=table[: len(sample)],
            background=table[len(sample) :],
            levels=tuple(levels for _, levels in pairs),
            columns=both.columns if isinstance(sample.X, pd.DataFrame) else None,
        )

    def decode(self, codes: FloatArray) -> pd.DataFrame | npt.NDArray[Any]:
        """The rows (m, d) represented by codes, with the model's column types."""
        import pandas as pd

        places = codes.astype(np.int64)
        values = [levels.take(places[:, i]) for i, levels in enumerate(self.levels)]
        if self.columns is None:
            return np.stack([np.asarray(v) for v in values], axis=1)
        return pd.DataFrame(dict(enumerate(values))).set_axis(self.columns, axis=1)
