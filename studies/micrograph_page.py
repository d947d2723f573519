"""The page of the micrograph benchmark: tables, and pictures of generated pairs alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from microstructures.micrographs import GREY
from microstructures.publishing import publish_text
from studies.figures import drawing, middle_slice, publish_pictures
from studies.micrograph_sources import Pictures
from studies.report import render

SHOWN = 4


def write_micrograph_page(folder: Path, results: Mapping[str, Any], made: Pictures) -> Path:
    """Write `README.md` and, of generated masks, a picture of micrographs with their masks."""
    folder.mkdir(parents=True, exist_ok=True)
    if made:
        publish_pictures({"pairs": pairs_figure(made)}, folder)
    use = {name: _mean_iou(found["iou"]) for name, found in results["uses"].items()}
    page = {"results": results, "use": use, "pairs": bool(made)}
    return publish_text(folder / "README.md", render("bench_micrographs.md.j2", page))


def pairs_figure(pictures: Pictures) -> str:
    """Return rendered micrographs above their masks, spread over the pictures."""
    chosen = [pictures[k] for k in np.linspace(0, len(pictures) - 1, SHOWN).round().astype(int)]
    with drawing(SHOWN, 2, width=2.2 * SHOWN, height=4.8) as made:
        for column, picture in enumerate(chosen):
            grey = middle_slice(picture.channels[GREY])
            above, below = made.axes[0, column], made.axes[1, column]
            above.imshow(grey.T, cmap="gray", vmin=0, vmax=255)
            below.imshow(
                middle_slice(picture.phases).T, cmap="cividis", vmin=0, vmax=picture.n_phases - 1
            )
            words = [str(v) for v in picture.process.values() if v is not None]
            above.set_title("generated: " + ", ".join(words), fontsize=7)
            for axis in (above, below):
                axis.set_xticks([])
                axis.set_yticks([])
        return made.data_uri()


def _mean_iou(found: list[list[float]]) -> dict[str, Any]:
    """Return the mean over segmenters by phase, and the mean over phases with its range."""
    values = np.array(found)
    means = values.mean(1)
    return {
        "phases": values.mean(0).tolist(),
        "mean": float(means.mean()),
        "low": float(means.min()),
        "high": float(means.max()),
    }
