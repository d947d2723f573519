"""Figures of the generators' benchmark."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studies.figures import (
    DESIGN,
    INK,
    RIVAL,
    TARGET,
    drawing,
    middle_slice,
    plain_log_ticks,
)
from studies.generator_table import Column

COLOURS = (DESIGN, TARGET, "#2e8b57", "#b8860b", "#6a3d9a", "#17becf")
GREYS = (RIVAL, "#c9b99a")
SHOWN_METRICS = ("s2", "chi", "lineal path", "surface", "euler", "c11", "conductivity")


def colours(columns: Sequence[Column]) -> dict[str, str]:
    """Return one colour per column: ink for real, greys for baselines."""
    models, greys = itertools.cycle(COLOURS), itertools.cycle(GREYS)
    tints = {"model": models, "baseline": greys, "real": itertools.repeat(INK)}
    return {column.name: next(tints[column.facts["role"]]) for column in columns}


def cells_figure(
    cells: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str], *, n_phases: int
) -> str:
    """Return cells side by side: one row per source, one column per process point."""
    names = list(cells)
    width = 1.35 * len(titles) + 1.2
    with drawing(len(titles), len(names), width=width, height=1.4 * len(names) + 0.5) as made:
        for row, name in enumerate(names):
            for axis, phases in zip(made.axes[row], cells[name], strict=True):
                image = middle_slice(phases)
                axis.imshow(image.T, origin="lower", cmap="cividis", vmin=0, vmax=n_phases - 1)
                axis.set_xticks([])
                axis.set_yticks([])
                for spine in axis.spines.values():
                    spine.set_visible(True)
            made.axes[row, 0].set_ylabel(_wrapped(name))
        for axis, title in zip(made.axes[0], titles, strict=True):
            axis.set_title(title, fontsize=7)
        return made.data_uri()


def calibration_figure(columns: Sequence[Column]) -> str:
    """Return generated against real condition means, one panel per descriptor."""
    names = [c.name for c in columns[0].score.calibrations]
    tint = colours(columns)
    with drawing(len(names), width=3.0 * len(names), height=3.1) as made:
        for axis, name in zip(made.axes[0], names, strict=True):
            for column in columns:
                found = next(c for c in column.score.calibrations if c.name == name)
                marker = "o" if column.is_model else "+" if column.facts["role"] == "real" else "."
                axis.plot(
                    found.real,
                    found.made,
                    marker,
                    color=tint[column.name],
                    markersize=4,
                    alpha=0.8,
                    label=column.name,
                )
            ends = [min(found.real), max(found.real)]
            axis.plot(ends, ends, color=INK, linewidth=0.7)
            axis.set_title(name)
            axis.locator_params(nbins=5)
            axis.set_xlabel("real mean")
        made.axes[0, 0].set_ylabel("generated mean")
        made.axes[0, 0].legend()
        return made.data_uri()


def ratio_figure(columns: Sequence[Column]) -> str:
    """Return every error over its floor with its interval, one row per metric."""
    known = [n for n in SHOWN_METRICS if any(_ratio(c, n) is not None for c in columns)]
    tint = colours(columns)
    with drawing(1, width=6.4, height=0.8 + 0.45 * len(known)) as made:
        axis = made.axes[0, 0]
        for k, column in enumerate(columns):
            offset = 0.6 * ((k + 0.5) / len(columns) - 0.5)
            points = [(i + offset, _ratio(column, n)) for i, n in enumerate(known)]
            points = [(y, r) for y, r in points if r is not None]
            values = np.array([r for _, r in points])
            axis.errorbar(
                values[:, 0],
                [y for y, _ in points],
                xerr=np.maximum([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0),
                fmt="o" if column.is_model else "s",
                markersize=4,
                linewidth=1,
                color=tint[column.name],
                label=column.name,
            )
        axis.axvline(1.0, color=INK, linewidth=0.7)
        axis.set_xscale("log")
        plain_log_ticks(axis.xaxis)
        axis.set_yticks(range(len(known)), known)
        axis.set_xlabel("error over the floor of real against real")
        axis.invert_yaxis()
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return made.data_uri()


def curves_figure(
    curves: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str], columns: Sequence[Column]
) -> str:
    """Return chi(r) of phase 1 at several conditions; source to one curve per condition."""
    tint = {"real": INK, **colours(columns)}
    with drawing(len(titles), width=2.3 * len(titles), height=2.7) as made:
        for k, (axis, title) in enumerate(zip(made.axes[0], titles, strict=True)):
            for name, values in curves.items():
                style = "-" if name == "real" else "--"
                axis.plot(values[k], style, color=tint[name], linewidth=1.1, label=name)
            axis.axhline(0.0, color=INK, linewidth=0.4)
            axis.set_title(title, fontsize=7)
            axis.set_xlabel("lag (voxels)")
        made.axes[0, 0].set_ylabel("chi")
        handles, labels = made.axes[0, 0].get_legend_handles_labels()
        made.figure.legend(handles, labels, loc="outside lower center", ncols=4)
        return made.data_uri()


def memorisation_figure(nearest: Mapping[str, np.ndarray], threshold: float, tint: Any) -> str:
    """Return how near samples lie to their nearest training image."""
    with drawing(1, width=5.0, height=2.5) as made:
        axis = made.axes[0, 0]
        low = min(float(v.min()) for v in nearest.values())
        bins = np.linspace(low, 1.0, 61).tolist()
        for name, values in nearest.items():
            colour = INK if name == "held-out real" else tint.get(name, RIVAL)
            axis.hist(values, bins=bins, density=True, histtype="step", color=colour, label=name)
        axis.axvline(threshold, color=TARGET, linewidth=0.9)
        axis.set_yscale("log")
        axis.set_xlabel("correlation with the nearest training image (line: held-out 99.9 %)")
        axis.set_ylabel("density")
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
        return made.data_uri()


def _ratio(column: Column, name: str) -> tuple[float, float, float] | None:
    for e in column.score.ensembles:
        if e.name == name and e.ratio is not None and e.ratio > 0:
            return e.ratio, e.low or 0.0, e.high or 0.0
    return None


def _wrapped(name: str) -> str:
    words, lines = name.replace("-", "- ").split(" "), [""]
    for word in words:
        joined = lines[-1] + ("" if lines[-1].endswith("-") or not lines[-1] else " ") + word
        if len(joined) > 14 and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = joined
    return "\n".join(lines)
