"""What a mitigation is: a model in, a new model out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from auditor.finding import Pillar

if TYPE_CHECKING:
    from auditor.data import AuditData
    from auditor.model import AuditedModel


class Mitigation(Protocol):
    """A repair of a model; whether it helped is for an audit to say.

    ``name``: its key in the table. ``goal``: what it is for, in one sentence. ``needs``: what it cannot do without.
    """

    name: ClassVar[str]
    pillar: ClassVar[Pillar]
    goal: ClassVar[str]
    citation: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    needs: ClassVar[str]

    def mitigate(self, model: AuditedModel, data: AuditData) -> AuditedModel:
        """A new model; the old one is untouched. Raises ModelError or DataError before any training starts."""
        ...
