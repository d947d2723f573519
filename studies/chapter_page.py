"""Pages of benchmarks made of chapters: one for the tree, one with real data that stays local."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microstructures.publishing import publish_text
from studies.bench_chapter import Chapter
from studies.bench_page import verdict
from studies.bench_table import Cell
from studies.figures import publish_pictures
from studies.report import render
from studies.settings import Settings
from studies.stopwatch import machine_description


def publish_chapters(
    out: Path,
    chapters: Sequence[Chapter],
    settings: Settings,
    *,
    template: str,
    models: Mapping[str, str],
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `results.json`, `page/README.md` and, with pictures of measured data, `local/`.

    Args:
        out: The run's folder.
        chapters: In the order of the page.
        settings: Of the run.
        template: Of the page.
        models: Hash of every model's weights, by name.
        told: What else the template shows.

    Returns:
        The content of `results.json`.
    """
    results = {
        "machine": machine_description(),
        "settings": settings.model_dump(mode="json"),
        "models": dict(models),
        "sections": {c.name: c.to_json() for c in chapters},
    }
    publish_text(out / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    drawn = {chapter.name: dict(chapter.figures()) for chapter in chapters}
    public = {c.name: dict(c.made()) if c.real else drawn[c.name] for c in chapters}
    page = {**told, "results": results, "chapters": chapters, "shown": shown}
    _write_page(out / "page", template, page, public)
    if any(chapter.real and drawn[chapter.name] for chapter in chapters):
        _write_page(out / "local", template, page, drawn)
    return results


def shown(cell: Cell) -> str:
    """Return a cell's text, marked where a bar is missed or reached."""
    said = verdict(cell.met)
    text = cell.text.replace("|", r"\|")
    return f"{text} **{said}**" if said == "missed" else f"{text} {said}".strip()


def _write_page(
    folder: Path,
    template: str,
    page: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, str]],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, dict[str, str]] = {}
    for chapter, captioned in figures.items():
        pictures[chapter] = {}
        for k, (caption, uri) in enumerate(captioned.items()):
            if uri:
                name = f"{chapter}-{k + 1}"
                publish_pictures({name: uri}, folder)
                pictures[chapter][caption] = f"{name}.png"
    publish_text(folder / "README.md", render(template, {**page, "pictures": pictures}))
