"""Figures of reports: numbers to PNG data URIs, drawn off screen."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from microstructures import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, DESIGN, RIVAL, TARGET = "#22272e", "#1f5f8b", "#9a9a9a", "#c0392b"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "axes.titlesize": 9,
    "image.interpolation": "nearest",
}


@contextmanager
def drawing(columns: int, rows: int = 1, *, width: float, height: float) -> "Iterator[Drawing]":
    """Give a drawing of width x height inches with `(rows, columns)` axes in the house style."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield Drawing(figure, figure.subplots(rows, columns, squeeze=False))


@dataclass(frozen=True)
class Drawing:
    """A figure with its axes, `(rows, columns)`."""

    figure: "Figure"
    axes: Any

    def data_uri(self, *, dpi: int = 130) -> str:
        """Return the figure as a PNG data URI."""
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", dpi=dpi)
        return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def publish_pictures(figures: Mapping[str, str], folder: Path) -> None:
    """Write figures given as PNG data URIs to `folder/NAME.png`; an empty one is left out."""
    for name, uri in figures.items():
        if uri:
            content = base64.b64decode(uri.partition(",")[2])
            publish(folder / f"{name}.png", lambda path, content=content: _write(path, content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def draw_map(
    axis: "Axes", values: np.ndarray, *, voxel_size_um: float, title: str, **options: Any
) -> Any:
    """Draw a field `(x, y)` (or the middle slice of `(x, y, z)`) with direction 1 to the right."""
    values = middle_slice(values)
    extent = (0.0, values.shape[0] * voxel_size_um, 0.0, values.shape[1] * voxel_size_um)
    image = axis.imshow(values.T, origin="lower", extent=extent, **options)
    axis.set_title(title)
    axis.set_xlabel("x, direction 1 (µm)")
    axis.set_ylabel("y, direction 2 (µm)")
    for spine in axis.spines.values():
        spine.set_visible(True)
    return image


def structure_row(
    structures: Sequence[np.ndarray], titles: Sequence[str], *, voxel_size_um: float, n_phases: int
) -> str:
    """Return label maps side by side, up to four a row."""
    columns = min(4, max(len(structures), 1))
    rows = -(-len(structures) // columns)
    with drawing(columns, rows, width=2.05 * columns + 0.5, height=2.25 * rows) as made:
        for axis in made.axes.flat[len(structures) :]:
            axis.set_visible(False)
        for axis, phases, title in zip(made.axes.flat, structures, titles, strict=False):
            draw_map(
                axis,
                phases,
                voxel_size_um=voxel_size_um,
                title=title,
                cmap="cividis",
                vmin=0,
                vmax=max(n_phases - 1, 1),
            )
            axis.label_outer()
        return made.data_uri()


def field_row(
    fields: Mapping[str, tuple[np.ndarray, str]], *, voxel_size_um: float, boundary: np.ndarray
) -> str:
    """Return scalar fields side by side, each with its colour bar; title to (field, unit)."""
    with drawing(len(fields), width=3.3 * len(fields), height=2.7) as made:
        for axis, (title, (field, unit)) in zip(made.axes[0], fields.items(), strict=True):
            image = draw_map(axis, field, voxel_size_um=voxel_size_um, title=title, cmap="viridis")
            outline(axis, boundary, voxel_size_um=voxel_size_um)
            made.figure.colorbar(image, ax=axis, label=unit, shrink=0.85)
        return made.data_uri()


def outline(axis: "Axes", phases: np.ndarray, *, voxel_size_um: float) -> None:
    """Draw the phase boundaries of a label map as thin white lines."""
    phases = middle_slice(phases)
    if phases.min() == phases.max():
        return
    x, y = ((np.arange(n) + 0.5) * voxel_size_um for n in phases.shape)
    levels = np.arange(phases.max()) + 0.5
    axis.contour(x, y, phases.T, levels=levels, colors="white", linewidths=0.5)


def middle_slice(values: np.ndarray) -> np.ndarray:
    """Return a 2-D field as it is, and the middle slice along direction 3 of a 3-D one."""
    return values if values.ndim == 2 else values[..., values.shape[2] // 2]


def axis_label(name: str, unit: str) -> str:
    """Return "ageing time (h)" for ("ageing_time_h", "h")."""
    words = name.split("_")
    plain = unit.replace(" ", "").replace("/", "").lower()
    if len(words) > 1 and words[-1].lower() == plain:
        words = words[:-1]
    return " ".join(words) + (f" ({unit})" if unit not in ("", "-") else "")


def plain_log_ticks(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers, 2 instead of 2 x 10^0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
