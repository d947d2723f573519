"""Figures of the benchmark's page."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from studies.figures import DESIGN, INK, RIVAL, TARGET, drawing

Rows = Sequence[dict[str, Any]]
SCHEME_COLOURS = {"rotated": TARGET, "q1": RIVAL, "staggered": DESIGN}


def ratio_figure(rows: Rows) -> str:
    """Return bars of how many times faster than each peer; empty where no peer is installed."""
    known = [row for row in rows if row["peer_seconds"] is not None]
    if not known:
        return ""
    with drawing(1, width=6.0, height=0.5 + 0.28 * len(known)) as made:
        axis = made.axes[0, 0]
        names = [f"{row['work']} / {row['peer']}" for row in known]
        axis.barh(
            names, [r["peer_seconds"] / r["seconds"] for r in known], color=DESIGN, height=0.6
        )
        axis.axvline(10.0, color=TARGET, linewidth=0.9)
        axis.set_xscale("log")
        axis.set_xlabel("times the peer's speed (line: the bar)")
        axis.invert_yaxis()
        return made.data_uri()


def solver_figure(rows: Rows) -> str:
    """Return CPU seconds of every code and scheme, one panel per task."""
    tasks = [
        (task, list(group))
        for task, group in groupby(rows, key=lambda row: (tuple(row["shape"]), row["contrast"]))
    ]
    with drawing(3, -(-len(tasks) // 3), width=9.0, height=1.9 * -(-len(tasks) // 3)) as made:
        for axis in made.axes.flat[len(tasks) :]:
            axis.set_visible(False)
        for axis, ((shape, contrast), found) in zip(made.axes.flat, tasks, strict=False):
            known = [row for row in found if row["cpu_seconds"] is not None]
            names = [f"{row['code']} {row['scheme']}" for row in known]
            colours = [DESIGN if row["code"] == "mesoforge" else RIVAL for row in known]
            axis.barh(names, [row["cpu_seconds"] for row in known], color=colours, height=0.6)
            what = f"contrast {contrast:g}" if contrast else "pores"
            axis.set_title(f"{' x '.join(map(str, shape))}, {what}")
            axis.set_xlabel("CPU s")
            axis.invert_yaxis()
        return made.data_uri()


def convergence_figure(rows: Rows) -> str:
    """Return error against voxels a side, one panel per closed form, one line per scheme."""
    cases = [(case, list(group)) for case, group in groupby(rows, key=lambda row: row["case"])]
    with drawing(len(cases), width=2.4 * len(cases), height=2.5) as made:
        for axis, (case, found) in zip(made.axes[0], cases, strict=True):
            for scheme, colour in SCHEME_COLOURS.items():
                own = [row for row in found if row["scheme"] == scheme]
                sides, errors = [r["side"] for r in own], [abs(r["error"]) for r in own]
                axis.loglog(sides, errors, "o-", color=colour, markersize=3, label=scheme)
            axis.set_title(case)
            axis.set_xlabel("voxels a side")
        made.axes[0, 0].set_ylabel("|relative error|")
        made.axes[0, 0].legend()
        return made.data_uri()


def width_figure(rows: Rows) -> str:
    """Return the brackets' widths as points, with their worst cell."""
    with drawing(1, width=6.0, height=0.6 + 0.24 * len(rows)) as made:
        axis = made.axes[0, 0]
        names = [row["name"] for row in rows]
        axis.plot([100 * r["first"] for r in rows], names, "o", color=DESIGN, label="mean, C11")
        axis.plot([100 * r["loads_worst"] for r in rows], names, "|", color=INK, label="worst load")
        axis.set_xlabel("width of the bracket (%)")
        axis.set_xlim(left=0.0)
        axis.invert_yaxis()
        axis.legend()
        return made.data_uri()
