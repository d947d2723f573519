"""The verb `bench`: measured figures beside the bars they must reach, table, JSON and page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from microstructures.publishing import publish_text
from studies.bench_page import verdict, write_page
from studies.progress import progress_bar
from studies.run_folder import Stage, open_run
from studies.settings import BenchSettings
from studies.stopwatch import machine_description

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One bar: what is asked, what was measured, and whether that reaches it (None: no bar)."""

    name: str
    asked: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Section:
    """One group of measurements: how to take them, what to ask of them, how to draw them."""

    name: str
    title: str
    about: str
    measure: Callable[[BenchSettings], Sequence[Any]]
    bars: Callable[[Rows], list[Bar]]
    figure: Callable[[Rows], str] | None = None


def run_bench(sections: Sequence[Section], settings: BenchSettings, out: Path) -> dict[str, Any]:
    """Measure every section that the folder does not have yet; write results and the page.

    Raises:
        DataError: The folder holds a run of other settings.
    """
    measured: dict[str, Stage] = {}
    with open_run(out, settings, verb="bench") as run:
        with progress_bar("bench", len(sections)) as advance:
            for count, section in enumerate(sections, start=1):
                measured[section.name] = run.stage(section.name, _taken(section, settings))
                advance(count)
        results = assemble(sections, measured, settings)
        publish_text(out / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
        write_page(out / "page", sections, results)
    print_bars(results)
    return results


def plan_bench(settings: BenchSettings) -> dict[str, Any]:
    """Return expected memory (MB), disk (MB) and time (min), from runs on two shared cores."""
    return {"memory_mb": 3000, "disk_mb": 1, "minutes": 2 if settings.quick else 45}


def assemble(
    sections: Sequence[Section], measured: dict[str, Stage], settings: BenchSettings
) -> dict[str, Any]:
    """Return machine, settings, and the rows and bars of each section, fit for JSON."""
    found = {}
    for section in sections:
        stage = measured[section.name]
        rows = stage.facts["rows"]
        found[section.name] = {
            "title": section.title,
            "bars": [asdict(bar) for bar in section.bars(rows)],
            "rows": rows,
            "wall_seconds": stage.seconds,
        }
    return {
        "machine": measured[sections[0].name].facts["machine"],
        "settings": settings.model_dump(mode="json"),
        "sections": found,
    }


def print_bars(results: dict[str, Any]) -> None:
    """Print a table of all bars."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="measured against asked", title_justify="left")
    for heading in ("bar", "asked", "measured", ""):
        table.add_column(heading, overflow="fold")
    for section in results["sections"].values():
        for bar in section["bars"]:
            table.add_row(bar["name"], bar["asked"], bar["measured"], verdict(bar["met"]))
    Console().print(table)


def _taken(section: Section, settings: BenchSettings) -> Callable[[], Stage]:
    def work() -> Stage:
        rows = [row if isinstance(row, dict) else asdict(row) for row in section.measure(settings)]
        return Stage({"rows": rows, "machine": machine_description()})

    return work
