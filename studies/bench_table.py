"""Tables of a benchmark's page: one measured thing a row, its cells judged by their bars."""

from collections.abc import Sequence
from dataclasses import dataclass

from studies.bench import Bar


@dataclass(frozen=True)
class Cell:
    """What one column shows in a row: text, and whether it reaches what is asked."""

    text: str
    met: bool | None = None


@dataclass(frozen=True)
class Row:
    """One measured thing by column.

    Args:
        name: What it is, with its unit.
        cells: One for each column.
        asked: The bar in words; "" where there is none.
        floor: What the measurement itself scatters by; "" where that was not measured.
    """

    name: str
    cells: tuple[Cell, ...]
    asked: str = ""
    floor: str = ""


@dataclass(frozen=True)
class Table:
    """Measured things by column."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def has_bars(self) -> bool:
        """Whether anything is asked."""
        return any(row.asked for row in self.rows)

    @property
    def has_floors(self) -> bool:
        """Whether the scatter of any measurement is known."""
        return any(row.floor for row in self.rows)

    def bars(self) -> list[Bar]:
        """Return every bar of every column."""
        return [
            Bar(f"{row.name}, {column}", row.asked, cell.text, cell.met)
            for k, column in enumerate(self.columns)
            for row in self.rows
            if (cell := row.cells[k]).met is not None
        ]


def plain_row(name: str, texts: Sequence[str]) -> Row:
    """Return a row of texts of which nothing is asked."""
    return Row(name, tuple(Cell(text) for text in texts))
