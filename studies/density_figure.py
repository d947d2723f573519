"""The figure of the training density over the process window, with the points asked for."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from generators.training_density import TrainingDensity, units_beyond
from microstructures import Parameter, ProcessSpace
from microstructures.structure import ProcessValue
from studies.figures import DESIGN, INK, TARGET, axis_label, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 41  # points along each axis of a panel
MARGIN = 0.08  # shown beyond the window and the points, in widths of the window
MOST_PANELS = 6
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
CAPTION = (
    "How densely the training data covers the process window, over pairs of process parameters and "
    "whatever the others are: 1 as around a typical training sample, 0 far from all of them. The "
    "frame is the window; points asked for are marked, those outside the frame were extrapolated."
)


def density_figure(
    space: ProcessSpace,
    density: TrainingDensity | None,
    asked: Sequence[Mapping[str, ProcessValue]],
) -> str:
    """Return the density over pairs of numbers among the parameters as a PNG data URI.

    One panel per pair, of many parameters those of the first ones; a curve where there is one
    number only. Empty text where the model was saved without a density, or no parameter is a
    number.

    Args:
        space: The model's process window.
        density: That of its training data.
        asked: Process points to mark; a point with an unknown value is left out of its panels.

    Raises:
        DataError: A point lies too far outside to be extrapolated to.
    """
    numbers = [k for k, parameter in enumerate(space) if parameter.scale != "choice"]
    if density is None or not numbers:
        return ""
    units, beyond = units_beyond(space, asked)
    points, outside = units.numpy(), np.array(beyond, dtype=bool)
    pairs = list(combinations(numbers, 2))[:MOST_PANELS]
    panels: list[tuple[int, ...]] = [*pairs] or [(numbers[0],)]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with drawing(columns, rows, width=0.9 + 2.6 * columns, height=2.5 * rows) as made:
        for axis in made.axes.flat[len(panels) :]:
            axis.set_visible(False)
        image = None
        for axis, panel in zip(made.axes.flat, panels, strict=False):
            chosen = [space.parameters[k] for k in panel]
            places = points[:, list(panel)]
            ends = [_ends(places[:, k]) for k in range(len(panel))]
            image = _draw_density(axis, density.marginal(panel), ends) or image
            _frame(axis, chosen)
            _mark(axis, places, outside)
        made.axes[0, 0].legend(*_legend(outside), loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        if image is not None:
            made.figure.colorbar(image, ax=made.axes, label="training density (-)")
        return made.data_uri()


def _ends(places: np.ndarray) -> tuple[float, float]:
    known = places[~np.isnan(places)]
    low, high = min([0.0, *known]), max([1.0, *known])
    return low - MARGIN, high + MARGIN


def _draw_density(
    axis: "Axes", density: TrainingDensity, ends: Sequence[tuple[float, float]]
) -> Any:
    """Draw an image over two coordinates and return it, or a curve over one."""
    lines = [torch.linspace(low, high, GRID, dtype=torch.float64) for low, high in ends]
    grid = torch.cartesian_prod(*lines).reshape(-1, len(lines))
    values = density(grid).reshape([GRID] * len(lines)).numpy()
    if len(lines) == 1:
        axis.plot(lines[0], values, color=INK)
        axis.set_ylim(0, 1.1)
        axis.set_ylabel("training density (-)")
        return None
    extent = (*ends[0], *ends[1])
    options = {
        "extent": extent,
        "vmin": 0,
        "vmax": 1,
        "cmap": "Greys",
        "alpha": 0.6,
        "aspect": "auto",
    }
    return axis.imshow(values.T, origin="lower", interpolation="bilinear", **options)


def _frame(axis: "Axes", parameters: Sequence[Parameter]) -> None:
    """Draw the window's edges and label the axes with the parameters' values."""
    for parameter, side in zip(parameters, ("x", "y"), strict=False):
        draw_edge = axis.axvline if side == "x" else axis.axhline
        for edge in (0.0, 1.0):
            draw_edge(edge, color=INK, linewidth=0.7, linestyle="--")
        labels = [f"{parameter.from_unit(u):.3g}" for u in TICKS]
        label = axis_label(parameter.name, parameter.unit)
        axis.set(**{f"{side}ticks": TICKS, f"{side}ticklabels": labels, f"{side}label": label})


def _mark(axis: "Axes", places: np.ndarray, outside: np.ndarray) -> None:
    places = places if places.shape[1] == 2 else np.stack([places[:, 0], 0 * places[:, 0]], 1)
    known = ~np.isnan(places).any(1)
    for beyond, marker in ((False, "o"), (True, "X")):
        shown = places[known & (outside == beyond)]
        if len(shown):  # marks that are not clipped and nowhere would take all the room
            axis.plot(*shown.T, marker, **_style(beyond), clip_on=False)


def _style(outside: bool) -> dict[str, Any]:
    colour = TARGET if outside else DESIGN
    return {"color": colour, "markersize": 7 if outside else 4, "markeredgecolor": "white"}


def _legend(outside: np.ndarray) -> tuple[list[Any], list[str]]:
    return tuple(map(list, zip(*_entries(outside), strict=True)))  # pyright: ignore


def _entries(outside: np.ndarray) -> Iterator[tuple[Any, str]]:
    from matplotlib.lines import Line2D

    yield Line2D([], [], linestyle="", marker="o", **_style(False)), f"asked: {(~outside).sum()}"
    if outside.any():
        mark = Line2D([], [], linestyle="", marker="X", **_style(True))
        yield mark, f"extrapolated: {outside.sum()}"
