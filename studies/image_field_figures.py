"""Figures of the chapter on stress straight from the image."""

from collections.abc import Mapping, Sequence

import numpy as np

from studies.figures import draw_map, drawing

TITLES = {
    "phases": "structure",
    "exact": "solver",
    "with critic": "with critic",
    "L1 only": "L1 only",
    "error, with critic": "error, with critic",
    "error, L1 only": "error, L1 only",
}


def error_figure(cells: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Return structure, von Mises stress by solver and nets, and error maps; a row per cell.

    Each cell holds 2-D maps by the names of `TITLES`. Stresses of a row share one scale, up to the
    solver's 99.5 % quantile, and so do its error maps.
    """
    rows = len(cells)
    with drawing(len(TITLES), rows, width=10.5, height=1.85 * rows) as made:
        for row, maps in enumerate(cells):
            top = float(np.quantile(maps["exact"], 0.995))
            errors = [maps[name] for name in TITLES if name.startswith("error")]
            worst = float(np.quantile(np.stack(errors), 0.995))
            images = {}
            for axis, (name, title) in zip(made.axes[row], TITLES.items(), strict=True):
                options = {"cmap": "viridis", "vmin": 0.0, "vmax": top}
                if name == "phases":
                    options = {"cmap": "cividis", "vmin": 0, "vmax": 3}
                elif name.startswith("error"):
                    options = {"cmap": "magma", "vmin": 0.0, "vmax": worst}
                images[name] = draw_map(
                    axis, maps[name], voxel_size_um=1.0, title=title if row == 0 else "", **options
                )
                axis.set(xlabel="", ylabel="", xticks=[], yticks=[])
            for name in ("L1 only", "error, L1 only"):
                axis = made.axes[row][list(TITLES).index(name)]
                made.figure.colorbar(images[name], ax=axis, shrink=0.85)
        return made.data_uri(dpi=100)
