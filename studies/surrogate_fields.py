"""Chapter of the surrogates' benchmark: linear fields in 2-D, nets against the stopped solver."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from studies.bench_chapter import Chapter
from studies.bench_table import Row, Table, plain_row
from studies.field_families import Family, kept_families, plane_families
from studies.field_race import (
    SOLVER,
    Start,
    affordable,
    raced_errors,
    shipped_starts,
)
from studies.field_standings import (
    Extent,
    Raced,
    cost_table,
    percent_cell,
    race_facts,
    race_figure,
    raced,
    verdict_on,
)
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key

NETS = ("elastic-2d-fno", "elastic-2d-unet")
CONTRASTS = (10.0, 100.0)
FEW = 3
"""Solver iterations after a net that the bars allow at high contrast."""


def fields_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors, brackets and costs at contrast 10 and 100, families learnt and not."""
    extent = _extent(settings)
    starts, key = shipped_starts(NETS), weights_key(NETS)
    families = kept_families(
        "fields.cells",
        lambda: plane_families(extent.cells, extent.side, seed=settings.seed),
        run,
    )
    found = {
        contrast: raced(f"fields.{key}.{contrast:g}", families, contrast, starts, extent, run)
        for contrast in CONTRASTS
    }
    tables = {
        "Contrast 10, the net alone": _alone(found[10.0]),
        f"Contrast 100, alone and after {FEW} solver iterations": _few(found[100.0]),
    }
    for contrast, one in found.items():
        tables[f"Contrast {contrast:g}: CPU ms per cell to a mean error of C11"] = cost_table(one)
    tables["Pores of the powder bed (modulus 0): error of the upper bound of C11"] = _porous(
        families[-1], starts, extent, run, f"fields.{key}.pores"
    )
    return Chapter(
        name="fields",
        title="Linear fields in 2-D: nets against the solver, stopped early",
        about=_about(extent, families)
        + " ".join(verdict_on(one, f"Contrast {c:g}") for c, one in found.items()),
        tables=tables,
        figures=partial(_figures, found),
        facts={f"{c:g}": race_facts(one) for c, one in found.items()},
    )


def _extent(settings: SurrogateBenchSettings) -> Extent:
    if settings.quick:
        return Extent(2, 32, 1, (0, 3, 8))
    return Extent(64, 64, 5) if settings.tier == "full" else Extent(24, 64, 2)


def _alone(found: Raced) -> Table:
    budget = min(found.costs[k, 0] for k in found.nets)
    place = affordable(found.costs[0], budget)
    columns = [(k, 0) for k in found.nets] + [(0, place)]
    names = [found.starts[k] for k in found.nets]
    rival = f"{SOLVER}, {found.iterations[place]} iterations"
    rows = []
    for family, errors in found.errors.items():
        learnt = found.trained[family]
        bar = 0.005 if learnt else 0.01
        rows.append(_row(f"{family}: midpoint of C11", errors["midpoint"], columns, bar))
        rows.append(_row(f"{family}: C11 at the learnt place", errors["estimate"], columns))
        rows.append(_row(f"{family}: width of the bracket", errors["width"], columns))
        rows.append(_row(f"{family}: strain", errors["strain"], columns, 0.08 if learnt else None))
    rows.append(_cost_row(found, columns))
    return Table((*names, rival), tuple(rows))


def _few(found: Raced) -> Table:
    few = found.iterations.index(FEW)
    budget = min(found.costs[k, few] for k in found.nets)
    place = affordable(found.costs[0], budget)
    columns = [(k, j) for k in found.nets for j in (0, few)] + [(0, few), (0, place)]
    names = [
        f"{SOLVER if k == 0 else found.starts[k]}, {found.iterations[j]} iterations"
        for k, j in columns
    ]
    judged = {(k, few) for k in found.nets}
    rows = []
    for family, errors in found.errors.items():
        rows.append(
            _row(f"{family}: C11 at the learnt place", errors["estimate"], columns, 0.005, judged)
        )
        rows.append(_row(f"{family}: midpoint of C11", errors["midpoint"], columns))
        rows.append(_row(f"{family}: width of the bracket", errors["width"], columns))
        rows.append(_row(f"{family}: strain", errors["strain"], columns))
    rows.append(_cost_row(found, columns))
    return Table(tuple(names), tuple(rows))


def _porous(
    beds: Family, starts: Sequence[Start], extent: Extent, run: RunFolder, stage: str
) -> Table:
    def measured() -> Stage:
        return Stage({}, raced_errors(beds, float("inf"), starts, extent.iterations))

    upper = run.stage(stage, measured).arrays["upper"]
    rows = [
        Row(f"after {k} iterations", tuple(percent_cell(upper[s, j]) for s in range(len(starts))))
        for j, k in enumerate(extent.iterations)
    ]
    return Table(tuple(s.name for s in starts), tuple(rows))


def _row(
    name: str,
    values: np.ndarray,
    columns: Sequence[tuple[int, int]],
    bar: float | None = None,
    judged: set[tuple[int, int]] | None = None,
) -> Row:
    cells = []
    for start, k in columns:
        own = values[start, k]
        asked = bar is not None and start > 0 and (judged is None or (start, k) in judged)
        met = bool(own.mean() <= bar) if asked and bar is not None else None
        cells.append(percent_cell(own, met))
    return Row(name, tuple(cells), "" if bar is None else f"at most {100 * bar:g} %")


def _cost_row(found: Raced, columns: Sequence[tuple[int, int]]) -> Row:
    return plain_row("CPU ms per cell", [f"{found.costs[s, k]:.3g}" for s, k in columns])


def _about(extent: Extent, families: Sequence[Family]) -> str:
    names = {
        trained: ", ".join(f.name for f in families if f.trained is trained)
        for trained in (True, False)
    }
    return (
        f"{extent.cells} cells of {extent.side} x {extent.side} voxels of each family, two phases, "
        "each in turn the stiff one (in the powder bed the solid), Poisson's ratio 0.3, plane "
        f"strain. Learnt: {names[True]} (unseen cells). Not learnt: {names[False]}. Numbers are "
        "means over cells, the worst cell in brackets, against the solver at residual 1e-5. The "
        "rival is our own solver, its conjugate gradients stopped after some iterations; it gets "
        "the same certificate in float64, which all costs contain. Nets get further iterations of "
        "the same solver. The learnt place is where in the bracket a net's training cells of that "
        "contrast and number of iterations lie; the stopped solver answers with the middle, and "
        "races are run by these answers. CPU ms per cell on one thread, all loads, in turn in one "
        f"process, median of {extent.repetitions}. "
    )


def _figures(found: Mapping[float, Raced]) -> dict[str, str]:
    return {
        "Mean error of C11 against CPU time per cell, certificate included: "
        "each point one number of solver iterations.": race_figure(
            {f"contrast {c:g}": one for c, one in found.items()}
        )
    }
