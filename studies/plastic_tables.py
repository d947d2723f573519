"""Tables of the chapter on elastic-plastic fields."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from studies.bench_table import Cell, Row, Table, plain_row
from studies.run_folder import Stage

ASKED, TIMES = 0.064, 20.0
"""Error of von Mises stress, and how much cheaper than the solver, that the net is asked for."""

LEAST_SPREAD = 5  # cells of which a spread is told


def cheapest_solver(rivals: Mapping[str, Mapping[str, float]], error: float) -> str | None:
    """Return the name of the cheapest looseness of the solver with at most this error."""
    good = [n for n, r in rivals.items() if n.startswith("solver") and r["error"] <= error]
    return min(good, key=lambda name: rivals[name]["ms"], default=None)


def cost_table(facts: Mapping[str, Any]) -> Table:
    """Return what net and solver cost, and how many times the net is cheaper."""
    rivals = facts["rivals"]
    net = rivals["net"]
    rows = [
        plain_row(name, [f"{r['ms']:.3g}", f"{100 * r['error']:.2g} %", ""])
        for name, r in rivals.items()
    ]
    for what, error in {"the net's own error": net["error"], "6.4 %": ASKED}.items():
        name = cheapest_solver(rivals, error)
        if name is None:
            rows.append(plain_row(f"cheapest solver at {what}", ["-", "none measured", "-"]))
            continue
        times = rivals[name]["ms"] / net["ms"]
        cells = (
            Cell(f"{rivals[name]['ms']:.3g}"),
            Cell(f"{100 * rivals[name]['error']:.2g} %"),
            Cell(f"{times:.1f}", times >= TIMES and net["error"] <= error),
        )
        label = f"cheapest solver at {what}: {name.removeprefix('solver, ')}"
        rows.append(Row(label, cells, f"net {TIMES:g} times cheaper"))
    return Table(("CPU ms per cell", "error of von Mises stress", "times the net"), tuple(rows))


def verdict(facts: Mapping[str, Any]) -> str:
    """Return who wins at the net's own error, in a sentence."""
    rivals = facts["rivals"]
    net, name = rivals["net"], cheapest_solver(rivals, rivals["net"]["error"])
    if name is None:
        return " No looseness of the solver that was tried is as exact as the net."
    times = rivals[name]["ms"] / net["ms"]
    word = "wins" if times > 1 else "loses"
    return (
        f" At the net's own error ({100 * net['error']:.2g} %) the cheapest solver costs "
        f"{times:.1f} times as much: the net {word}, and the {TIMES:g} times asked for are "
        f"{'reached' if times >= TIMES else 'not reached'}."
    )


def family_table(measured: Mapping[str, Stage], learnt: set[str]) -> Table:
    """Return errors of net and start by family."""
    rows = []
    for family, stage in measured.items():
        net, start = (stage.arrays[f"{who}.field"] for who in ("net", "start"))
        cells = []
        for errors in (net, start):
            met = errors.mean() <= ASKED if family in learnt and errors is net else None
            cells.append(Cell(_percent(errors.mean()), None if met is None else bool(met)))
        cells += [
            Cell(_percent(net[:, -1].mean())),
            Cell(_percent(net.mean(1).max())),
            Cell(_percent(stage.arrays["net.mean"].mean())),
            Cell(_percent(stage.arrays["start.mean"].mean())),
            Cell(_percent(stage.arrays["net.imbalance"].mean())),
            Cell(f"{np.median(stage.arrays['net.distance']):.2f}"),
            Cell(str(len(net))),
        ]
        asked = f"at most {_percent(ASKED)}" if family in learnt else ""
        rows.append(Row(family, tuple(cells), asked))
    columns = (
        "von Mises stress, net",
        "start and law, no net",
        "net, last step",
        "net, worst cell",
        "mean curve, net",
        "mean curve, start",
        "imbalance, net",
        "distance (median)",
        "cells",
    )
    return Table(columns, tuple(rows))


def step_table(measured: Mapping[str, Stage]) -> Table:
    """Return the net's error by step of the test."""
    rows = []
    for family, stage in measured.items():
        by_step = stage.arrays["net.field"].mean(0)
        rows.append(plain_row(family, [_percent(error) for error in by_step]))
    count = len(rows[0].cells)
    return Table(tuple(f"step {k + 1}" for k in range(count)), tuple(rows))


def yield_table(measured: Mapping[str, Stage]) -> Table:
    """Return bias and spread of the offset yield stress."""
    rows = []
    for family, stage in measured.items():
        cells = []
        for who in ("net", "start"):
            errors = stage.arrays[f"{who}.yield"]
            cells += [_percent(errors.mean()) if len(errors) else "-"]
            cells += [_percent(errors.std(ddof=1)) if len(errors) >= LEAST_SPREAD else "-"]
        rows.append(plain_row(family, [*cells, str(len(stage.arrays["net.yield"]))]))
    columns = ("net, bias", "net, spread", "start, bias", "start, spread", "cells")
    return Table(columns, tuple(rows))


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
