"""Figures of the chapter on elastic-plastic fields."""

from collections.abc import Mapping

import numpy as np
import torch

from physics.mechanics.radial_return import von_mises
from studies.figures import DESIGN, INK, RIVAL, TARGET, drawing, plain_log_ticks


def cost_figure(rivals: Mapping[str, Mapping[str, float]]) -> str:
    """Return error against CPU ms per cell, of the solver at several looseness and of the net."""
    with drawing(1, width=5.0, height=3.2) as made:
        axis = made.axes[0, 0]
        ordered = sorted(rivals.items(), key=lambda rival: rival[1]["ms"])
        for k, (name, found) in enumerate(ordered):
            solver = name.startswith("solver")
            colour = RIVAL if solver else TARGET if name.startswith("start") else DESIGN
            axis.plot(found["ms"], 100 * found["error"], "o", color=colour, markersize=4)
            label = name.removeprefix("solver, ") if solver else name
            axis.annotate(
                # Above and below in turn: neighbours' names do not meet.
                label, (found["ms"], 100 * found["error"]), (3, 3 if k % 2 else -7),
                textcoords="offset points", fontsize=5, color=colour,
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("log")
        plain_log_ticks(axis.xaxis)
        plain_log_ticks(axis.yaxis)
        axis.axhline(6.4, color=INK, linewidth=0.6)
        axis.set_xlabel("CPU ms per cell, whole test")
        axis.set_ylabel("error of von Mises stress (%)")
        return made.data_uri()


def stress_figure(exact: np.ndarray, net: np.ndarray) -> str:
    """Return von Mises stress by solver and net at the last step, and the difference (GPa)."""
    q, ours = (_von_mises(stress[-1]) for stress in (exact, net))
    with drawing(3, width=8.0, height=2.6) as made:
        top = float(q.max())
        shown = {"solver": q, "net": ours, "net - solver": ours - q}
        for axis, (title, image) in zip(made.axes[0], shown.items(), strict=True):
            signed = title == "net - solver"
            low, high, colours = (-top / 4, top / 4, "RdBu_r") if signed else (0, top, "viridis")
            drawn = axis.imshow(image.T, origin="lower", vmin=low, vmax=high, cmap=colours)
            axis.set_title(title)
            axis.set_xticks([])
            axis.set_yticks([])
            made.figure.colorbar(drawn, ax=axis, shrink=0.8)
        return made.data_uri()


def curve_figure(strain: np.ndarray, exact: np.ndarray, net: np.ndarray) -> str:
    """Return the mean von Mises stress over the norm of the mean strain, solver and net."""
    size = np.concatenate([[0.0], np.linalg.norm(strain, axis=1)])
    with drawing(1, width=3.6, height=2.8) as made:
        axis = made.axes[0, 0]
        for name, stress, style in (("solver", exact, "-"), ("net", net, "o")):
            levels = [0.0, *(float(_von_mises(step).mean()) for step in stress)]
            axis.plot(100 * size, levels, style, color=INK if style == "-" else DESIGN, label=name)
        axis.set_xlabel("size of the mean strain (%)")
        axis.set_ylabel("mean von Mises stress (GPa)")
        axis.legend()
        return made.data_uri()


def _von_mises(stress: np.ndarray) -> np.ndarray:
    return von_mises(torch.from_numpy(stress)[None, None])[0, 0].numpy()
