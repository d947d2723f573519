"""One section of a benchmark's page: tables, and pictures drawn when the page is written."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from studies.bench_table import Table


@dataclass(frozen=True)
class Chapter:
    """One section of the page.

    Args:
        name: Stem of its pictures.
        title: Its heading.
        about: What was compared with what, counts included.
        tables: Tables by caption.
        figures: Draws its pictures by caption; called when a page is written.
        real: Whether the pictures show measured data, which no committed page may.
        made: Draws the pictures, by caption, that such a page may show in their stead.
    """

    name: str
    title: str
    about: str
    tables: Mapping[str, Table]
    figures: Callable[[], Mapping[str, str]] = dict
    real: bool = False
    made: Callable[[], Mapping[str, str]] = dict
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return titles, tables, bars and facts as plain data."""
        tables = {
            caption: {
                "columns": list(t.columns),
                "rows": [
                    {
                        "metric": row.name,
                        "asked": row.asked,
                        "floor": row.floor,
                        "cells": [asdict(cell) for cell in row.cells],
                    }
                    for row in t.rows
                ],
            }
            for caption, t in self.tables.items()
        }
        bars = [asdict(bar) for t in self.tables.values() for bar in t.bars()]
        return {
            "title": self.title,
            "about": self.about,
            "tables": tables,
            "bars": bars,
            "facts": dict(self.facts),
        }
