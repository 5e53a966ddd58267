"""Doubts about duplicate rows: exact copies make intervals too narrow unless they are genuine separate rows."""

from __future__ import annotations

import math

from auditor.core.files import Closed
from auditor.core.number_types import Count, PositiveCount

# Of all rows; fewer may be chance, and widen nothing that anybody would see.
MOST_COPIES = 0.01
_BY_ACCIDENT = 1e-6
_OCCUR = 0.25


class Copies(Closed):
    """The number of ``n`` rows that repeat an earlier one in all columns of the file.

    ``combinations``: how many different rows the values of each column allow for, n + 1 for any more than n.
    ``divisor``: what the number of copies of every different row is a multiple of, or of all but a few.
    """

    n: Count
    copies: Count
    combinations: Count
    divisor: PositiveCount = 1

    @property
    def share(self) -> float:
        """Copies among all rows; 0 of none."""
        return self.copies / self.n if self.n else 0.0

    @property
    def by_chance(self) -> bool:
        """Whether repeated rows are expected, since there are more rows than possible values, without pasted copies.

        Of what could differ a quarter does; of rows drawn again and again from a few, values go together that need not.
        Numbers of copies are all multiples of d by accident with a probability of about ``d^-k`` for k different rows.
        """
        different = self.n - self.copies
        pasted = different * math.log(self.divisor) > -math.log(_BY_ACCIDENT)
        return self.combinations <= self.n and different >= _OCCUR * self.combinations and not pasted


def why_doubtful(copies: Copies | None) -> str:
    """The reason why numbers on these rows are not judged, with advice; "" if they may be.

    More than 1 % of copies: a file pasted twelve times has the rows of one, and its intervals are 3.5 times too narrow.
    Rows of a few columns with a few values each repeat of themselves: nothing is said there unless all do alike.
    """
    if copies is None or not copies.share > MOST_COPIES or copies.by_chance:
        return ""
    return (
        f"{copies.copies:,} of {copies.n:,} rows ({copies.share:.1%}) are exact copies of other rows, and intervals "
        "take rows as independent. Leave the copies out, or name the column that says which rows belong together with "
        "--cluster COLUMN; if they are of different people who only happen to agree, say --copies-are-real."
    )
