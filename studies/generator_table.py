"""Tables of generators: metrics by contender, each cell judged by its bar."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from generators.microbench import MicroBenchScore
from generators.microbench_memorisation import Memorisation
from studies.bench_table import Cell, Row, Table


@dataclass(frozen=True)
class Column:
    """One contender or baseline of a track, as its stages describe it."""

    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return self.facts["name"]

    @property
    def is_model(self) -> bool:
        """Whether it is a trained generator, which the bars are for."""
        return self.facts["role"] == "model"

    @cached_property
    def score(self) -> MicroBenchScore:
        """M1 to M8."""
        return MicroBenchScore.from_json(self.facts["score"])

    @property
    def memorisation(self) -> Memorisation | None:
        """M9, None where no training set was given."""
        found = self.facts.get("memorisation")
        return None if found is None else Memorisation(**found)

    def number(self, name: str) -> float | None:
        """Return a further measured number, None where it was not taken."""
        value = self.facts.get(name)
        return None if value is None else float(value)


@dataclass(frozen=True)
class Metric:
    """One row: how to show it, and what is asked of it.

    Args:
        name: With the number that MICROBENCH gives it.
        asked: The bar in words; "stated" where there is none.
        show: The column's text, empty where it was not measured.
        value: The number that the bar is on; None where it was not measured.
        reached: Whether a number reaches the bar; None for no bar.
        floor: What real against real shows, by any column of the track.
    """

    name: str
    asked: str
    show: Callable[[Column], str]
    value: Callable[[Column], float | None] = lambda column: None
    reached: Callable[[float], bool] | None = None
    floor: Callable[[Column], str] = lambda column: ""

    def cell(self, column: Column) -> Cell:
        """Return what a column shows here; only models are judged."""
        text = self.show(column) or "-"
        value = self.value(column)
        if self.reached is None or value is None or not column.is_model:
            return Cell(text)
        return Cell(text, self.reached(value))


def table(metrics: Sequence[Metric], columns: Sequence[Column]) -> Table:
    """Return all metrics of all columns, without those that no column has."""
    rows = [
        Row(m.name, tuple(m.cell(c) for c in columns), m.asked, m.floor(columns[0]) or "-")
        for m in metrics
    ]
    shown = [row for row in rows if any(cell.text != "-" for cell in row.cells)]
    return Table(tuple(c.name for c in columns), tuple(shown))
