"""Rows that a person wants as Arrow, pandas or polars."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Frame:
    """Rows, in whatever form they are wanted.

    Attributes:
        arrow: the rows as an Arrow table.
    """

    arrow: pa.Table

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self.arrow

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame; needs pandas."""
        return self.arrow.to_pandas()

    def to_polars(self) -> Any:
        """The rows as a polars DataFrame; needs polars."""
        import polars

        return polars.from_arrow(self.arrow)

    def to_pylist(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        rows: list[dict[str, Any]] = self.arrow.to_pylist()
        return rows

    def _repr_html_(self) -> str:
        return str(self.to_pandas()._repr_html_())
