"""Pages of the generators' benchmark: one for the tree, one with real data that stays local."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microstructures.publishing import publish_text
from studies.bench_chapter import Chapter
from studies.bench_page import verdict
from studies.figures import publish_pictures
from studies.generator_table import Cell
from studies.published_generators import PUBLISHED
from studies.report import render


def write_pages(out: Path, chapters: Sequence[Chapter], results: Mapping[str, Any]) -> None:
    """Write `page/README.md` and, with pictures of measured data, `local/README.md`."""
    drawn = {chapter.name: dict(chapter.figures()) for chapter in chapters}
    public = {c.name: dict(c.made()) if c.real else drawn[c.name] for c in chapters}
    _write_page(out / "page", chapters, public, results)
    if any(chapter.real and drawn[chapter.name] for chapter in chapters):
        _write_page(out / "local", chapters, drawn, results)


def _write_page(
    folder: Path,
    chapters: Sequence[Chapter],
    figures: Mapping[str, Mapping[str, str]],
    results: Mapping[str, Any],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, dict[str, str]] = {}
    for chapter in chapters:
        pictures[chapter.name] = {}
        for k, (caption, uri) in enumerate(figures[chapter.name].items()):
            if uri:
                name = f"{chapter.name}-{k + 1}"
                publish_pictures({name: uri}, folder)
                pictures[chapter.name][caption] = f"{name}.png"
    page = {
        "results": results,
        "chapters": chapters,
        "pictures": pictures,
        "published": PUBLISHED,
        "shown": shown,
    }
    publish_text(folder / "README.md", render("bench_generators.md.j2", page))


def shown(cell: Cell) -> str:
    """Return a cell's text, marked where a bar is missed or reached."""
    said = verdict(cell.met)
    text = cell.text.replace("|", r"\|")
    return f"{text} **{said}**" if said == "missed" else f"{text} {said}".strip()
