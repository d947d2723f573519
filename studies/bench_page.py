"""The page of a benchmark: Markdown with pictures, rendered from its results."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microstructures.publishing import publish_text
from studies.figures import publish_pictures
from studies.report import render

if TYPE_CHECKING:
    from studies.bench import Section


def write_page(folder: Path, sections: "Sequence[Section]", results: dict[str, Any]) -> Path:
    """Write `README.md` and one picture per section that draws one."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        section.name: section.figure(results["sections"][section.name]["rows"])
        for section in sections
        if section.figure is not None
    }
    publish_pictures(figures, folder)
    about = {section.name: section.about for section in sections}
    page = {"results": results, "about": about, "figures": figures, "verdict": verdict}
    return publish_text(folder / "README.md", render("bench.md.j2", page))


def verdict(met: bool | None) -> str:
    """Return "reached", "missed", or nothing where no bar is set."""
    return "" if met is None else "reached" if met else "missed"


def copy_page(run: Path, folder: Path) -> Path:
    """Copy the page of a finished run, for instance into the tree."""
    shutil.copytree(run / "page", folder, dirs_exist_ok=True)
    return folder
