"""An executor that needs no other process."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.training.task_executor import Tasks, do


class InThisProcess:
    """An executor that runs one task after another in this process."""

    def results(self, tasks: Tasks) -> Iterator[tuple[int, bytes]]:
        for i, each in enumerate(tasks.each):
            yield i, do(tasks.kind, tasks.shared, each)
