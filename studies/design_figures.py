"""The figures of a design report."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studies.evaluation import PROPERTY_LABELS
from studies.figures import (
    DESIGN,
    INK,
    RIVAL,
    TARGET,
    axis_label,
    drawing,
    plain_log_ticks,
)
from studies.search import best_so_far


def target_figure(results: Mapping[str, Any], cells: Mapping[str, np.ndarray]) -> str:
    """Return target against this structure, its random rival, and this process's cells."""
    targets = results["target"]
    with drawing(len(targets), width=3.6 * len(targets), height=2.3) as made:
        for axis, (name, target) in zip(made.axes[0], targets.items(), strict=True):
            axis.axvline(target, color=TARGET, linewidth=1.2, label="target")
            axis.axvspan(0.98 * target, 1.02 * target, color=TARGET, alpha=0.1, label="± 2 %")
            bracket, value = results["bracket"][name], results["achieved"][name]
            sides = [[max(value - bracket["lower"], 0)], [max(bracket["upper"] - value, 0)]]
            axis.errorbar([value], [2], xerr=sides, fmt="o", color=DESIGN, capsize=4)
            axis.plot([results["random_best"]["achieved"][name]], [1], "s", color=RIVAL)
            rows = ["best random structure", "this structure"]
            if name in cells:
                axis.plot(cells[name], np.zeros(len(cells[name])), "|", color=INK, markersize=9)
                rows = ["this process's cells", *rows]
            axis.set_yticks(np.arange(3 - len(rows), 3), rows)
            axis.set_ylim(-0.6, 2.6)
            axis.set_xlabel(PROPERTY_LABELS[name])
            axis.label_outer()
        made.axes[0, 0].legend(loc="best")
        return made.data_uri()


def trace_figure(found: Sequence[Mapping[str, Any]], rival: Sequence[Mapping[str, Any]]) -> str:
    """Return the best combined miss so far of the search and of the random trials."""
    with drawing(1, width=5.6, height=2.9) as made:
        axis = made.axes[0, 0]
        for trials, colour, label in ((rival, RIVAL, "random"), (found, DESIGN, "search")):
            misses = np.array([100 * trial["combined_miss"] for trial in trials])
            passed = np.array([trial["passed"] for trial in trials])
            count = np.arange(1, len(misses) + 1)
            axis.plot(count[passed], misses[passed], "o", color=colour, markersize=3)
            axis.plot(count[~passed], misses[~passed], "x", color=colour, markersize=3, alpha=0.6)
            best = [
                np.nan if b is None else b for b in best_so_far(misses.tolist(), passed.tolist())
            ]
            axis.step(count, best, where="post", color=colour, label=f"{label}: best so far")
        axis.axhline(2, color=TARGET, linewidth=0.8, linestyle=":", label="2 %")
        axis.set_yscale("log")
        plain_log_ticks(axis.yaxis)
        axis.set_xlabel("evaluation")
        axis.set_ylabel("combined miss (%)")
        axis.set_title("o keeps to the constraints, × does not (random: the gate alone)")
        axis.legend()
        return made.data_uri()


def s2_figure(family: Mapping[str, np.ndarray]) -> str:
    """Return the design's two-point correlation within the band of its process's family."""
    with drawing(1, width=5.6, height=2.8) as made:
        axis, lag = made.axes[0, 0], family["band_lag_um"]
        low, high = family["band_lower"], family["band_upper"]
        axis.fill_between(lag, low, high, color=INK, alpha=0.15, label="family, 95 %")
        axis.plot(lag, family["band_mean"], color=INK, linewidth=0.9, label="family, mean")
        axis.plot(lag, family["s2"], color=DESIGN, label="this structure")
        axis.set_xlabel("lag r (µm)")
        axis.set_ylabel("S2 of phase 1 (-)")
        axis.legend()
        return made.data_uri()


def window_figure(
    facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], process: Mapping[str, Any]
) -> str:
    """Return the map of the mean property's combined miss, one number a point, design marked."""
    percent = 100 * arrays["miss"].T
    count = len(percent)
    with drawing(1, width=1.9 + 0.5 * count, height=1.0 + 0.42 * count) as made:
        axis = made.axes[0, 0]
        image = axis.imshow(percent, origin="lower", cmap="viridis_r", aspect="auto")
        middle = (percent.min() + percent.max()) / 2
        for (row, column), value in np.ndenumerate(percent):
            ink = "white" if value > middle else INK
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=7)
        place = [_place(process, facts[side], arrays[side]) for side in ("x", "y")]
        axis.plot(*place, "*", color=TARGET, markersize=12, markeredgecolor="white", clip_on=False)
        for side in ("x", "y"):
            labels = [f"{value:.3g}" for value in arrays[side]]
            axis.set(**{f"{side}ticks": np.arange(count), f"{side}ticklabels": labels})
            axis.set(**{f"{side}label": axis_label(facts[side]["name"], facts[side]["unit"])})
        made.figure.colorbar(image, ax=axis, label="miss of the process's mean (%)")
        return made.data_uri()


def _place(process: Mapping[str, Any], about: Mapping[str, str], values: np.ndarray) -> float:
    """Return where the design lies among the points of one axis, counted from 0."""
    bend = np.log if about["scale"] == "log" else np.asarray
    return float(np.interp(bend(process[about["name"]]), bend(values), np.arange(len(values))))


def check_figure(check: Mapping[str, Any], cells: Mapping[str, np.ndarray]) -> str:
    """Return every fresh simulation, their mean with its 95 % interval, and the target."""
    properties = check["properties"]
    with drawing(len(properties), width=2.9 * len(properties), height=2.8) as made:
        for axis, (name, found) in zip(made.axes[0], properties.items(), strict=True):
            values, mean, (low, high) = cells[name], found["mean"], found["interval_95"]
            axis.axhline(found["target"], color=TARGET, linewidth=1.0, label="target")
            place = np.linspace(-0.25, 0.25, len(values))
            axis.plot(place, values, "o", color=RIVAL, markersize=3)
            sides, label = [[mean - low], [high - mean]], "mean, 95 % interval"
            axis.errorbar([0.5], [mean], sides, fmt="o", color=DESIGN, capsize=4, label=label)
            axis.set_xticks([0.0, 0.5], [f"{found['n']} cells", "mean"])
            axis.set_xlim(-0.45, 0.75)
            axis.set_ylabel(PROPERTY_LABELS[name])
        made.axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
        return made.data_uri()


def von_mises(stress: np.ndarray, out_of_plane: np.ndarray | None = None) -> np.ndarray:
    """Return the von Mises stress of Mandel components `(n, *space)`.

    sqrt(3/2 s:s) with the deviator s. In 2-D (plane strain) sigma_33 is not among the components
    and is given as `out_of_plane`, nu (sigma_11 + sigma_22) of each voxel's material.
    """
    if len(stress) == 6:
        normal, shear = stress[:3], stress[3:]
    else:
        assert out_of_plane is not None
        normal, shear = np.stack([stress[0], stress[1], out_of_plane]), stress[2:]
    deviator = normal - normal.mean(0)
    return np.sqrt(1.5 * ((deviator**2).sum(0) + (shear**2).sum(0)))
