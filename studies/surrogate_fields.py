"""Chapter of the surrogates' benchmark: linear fields in 2-D, nets against the stopped solver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from studies.bench_chapter import Chapter
from studies.bench_table import Cell, Row, Table, plain_row
from studies.field_families import Family, kept_families, plane_families
from studies.field_race import (
    METRICS,
    SOLVER,
    Start,
    affordable,
    cheapest,
    raced_costs,
    raced_errors,
    shipped_starts,
)
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key

NETS = ("elastic-2d-fno", "elastic-2d-unet")
CONTRASTS = (10.0, 100.0)
FEW = 3
"""Solver iterations after a net that the bars allow at high contrast."""

LEVELS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
WORTH = 3.0
"""Times cheaper than the stopped solver from which a net pays."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    cells: int
    side: int
    repetitions: int
    iterations: tuple[int, ...] = (0, 1, 2, 3, 5, 8, 12, 16, 24)

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "Extent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls(2, 32, 1, (0, 3, 8))
        return cls(64, 64, 5) if settings.tier == "full" else cls(8, 64, 2)


@dataclass(frozen=True)
class Raced:
    """Errors of all starts on the families at one contrast, with what they cost.

    `errors` are `(start, iterations, cell)` by metric, `distance` is `(start, cell)`; `costs`
    are CPU ms per cell `(start, iterations)`.
    """

    starts: tuple[str, ...]
    iterations: tuple[int, ...]
    trained: Mapping[str, bool]
    errors: Mapping[str, Mapping[str, np.ndarray]]
    costs: np.ndarray
    nets: tuple[int, ...] = field(default=(1, 2))

    def mean(self, metric: str, *, trained: bool) -> np.ndarray:
        """Return a metric's mean over the cells of all families learnt or not, (start, iter)."""
        own = [e[metric] for name, e in self.errors.items() if self.trained[name] is trained]
        return np.concatenate(own, -1).mean(-1)


def fields_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors, brackets and costs at contrast 10 and 100, families learnt and not."""
    extent = Extent.of(settings)
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


def raced(
    stage: str,
    families: Sequence[Family],
    contrast: float,
    starts: Sequence[Start],
    extent: Extent,
    run: RunFolder,
) -> Raced:
    """Measure errors and costs of all starts, each family a stage of the run."""
    errors = {}
    for family in families:
        name = f"{stage}.{family.name.replace(' ', '-')}"
        work = partial(raced_errors, family, contrast, starts, extent.iterations)
        errors[family.name] = run.stage(name, lambda work=work: Stage({}, work())).arrays
    costs = run.stage(
        f"{stage}.costs",
        lambda: Stage(
            {},
            {
                "ms": raced_costs(
                    families[0].phases,
                    contrast,
                    starts,
                    extent.iterations,
                    repetitions=extent.repetitions,
                )
            },
        ),
    ).arrays["ms"]
    return Raced(
        tuple(s.name for s in starts),
        extent.iterations,
        {family.name: family.trained for family in families},
        errors,
        costs,
        tuple(range(1, len(starts))),
    )


def cost_table(found: Raced) -> Table:
    """Return the least cost to each error, families learnt and not, the best one marked."""
    rows = []
    for trained in (True, False):
        errors = found.mean("midpoint", trained=trained)
        for level in LEVELS:
            costs = [cheapest(e, c, level) for e, c in zip(errors, found.costs, strict=True)]
            where = "learnt" if trained else "other"
            rows.append(plain_row(f"{100 * level:g} %, {where} families", _marked(costs)))
    return Table(found.starts, tuple(rows))


def verdict_on(found: Raced, name: str) -> str:
    """Return who is cheaper at equal mean errors, and what an exact net of this cost would gain."""
    best, at, where = 0.0, 0.0, ""
    most, down_to = 0.0, 1.0
    alone = min(found.costs[k, 0] for k in found.nets)
    for trained in (True, False):
        errors = found.mean("midpoint", trained=trained)
        for level in LEVELS:
            own = cheapest(errors[0], found.costs[0], level)
            nets = [cheapest(errors[k], found.costs[k], level) for k in found.nets]
            known = [cost for cost in nets if cost is not None]
            if own is not None and own / alone > most:
                most, down_to = own / alone, level
            if own is not None and known and own / min(known) > best:
                best, at = own / min(known), level
                where = "learnt" if trained else "other"
    if best == 0:
        return f"{name}: no error was reached by the solver and a net."
    said = (
        f"{name}: at its best, {100 * at:g} % on {where} families, a net with whatever iterations "
        f"it needs costs {1 / best:.2g} times what the stopped solver costs"
    )
    if best >= WORTH:
        return said + f": the net wins there, {best:.1f}-fold."
    said += ": the solver wins" if best < 1 else f": less than {WORTH:g}-fold is no gain"
    return said + (
        f" (a net that made no error at all would, by its cost and the certificate's, still cost "
        f"{1 / most:.2g} times what the solver costs to {100 * down_to:g} %)."
    )


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


def percent_cell(values: np.ndarray, met: bool | None = None) -> Cell:
    """Return the mean, and the worst in brackets, of shares."""
    return Cell(percent(values), met)


def percent(values: np.ndarray) -> str:
    """Return the mean, and the worst in brackets, of shares in per cent."""
    return f"{100 * values.mean():.2g} % ({100 * values.max():.2g} %)"


def _marked(costs: Sequence[float | None]) -> list[str]:
    known = [cost for cost in costs if cost is not None]
    texts = ["not reached" if cost is None else f"{cost:.3g}" for cost in costs]
    best = min(known, default=None)
    return [
        f"{t} (least)" if c is not None and c == best else t
        for t, c in zip(texts, costs, strict=True)
    ]


def race_facts(found: Raced) -> dict:
    """Return the race as plain data: means by family and metric, and costs."""
    means = {
        family: {m: errors[m].mean(-1).tolist() for m in METRICS}
        for family, errors in found.errors.items()
    }
    worst = {f: errors["midpoint"].max(-1).tolist() for f, errors in found.errors.items()}
    return {
        "starts": list(found.starts),
        "iterations": list(found.iterations),
        "cpu_ms": found.costs.tolist(),
        "means": means,
        "highest_midpoint_error": worst,
        "brackets_broken": int(sum(e["broken"].sum() for e in found.errors.values())),
    }


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
        "contrast lie; the solver has learnt nothing and answers with the middle, and races are "
        "run by the middle of all. CPU ms per cell on one thread, all load cases, all in turn in one "
        f"process, median of {extent.repetitions}. "
    )


def _figures(found: Mapping[float, Raced]) -> dict[str, str]:
    return {
        "Mean error of C11's midpoint against CPU time per cell, certificate included: "
        "each point one number of solver iterations.": race_figure(
            {f"contrast {c:g}": one for c, one in found.items()}
        )
    }


def race_figure(found: Mapping[str, Raced]) -> str:
    """Return error against cost, a column per race, a row for families learnt and not."""
    from studies.figures import DESIGN, RIVAL, TARGET, drawing

    colours = (RIVAL, DESIGN, TARGET)
    with drawing(len(found), 2, width=3.6 * len(found), height=5.2) as made:
        for column, (name, one) in enumerate(found.items()):
            for row, trained in enumerate((True, False)):
                axis = made.axes[row, column]
                errors = one.mean("midpoint", trained=trained)
                for k, start in enumerate(one.starts):
                    axis.semilogy(
                        one.costs[k], 100 * errors[k], "o-", ms=3, color=colours[k], label=start
                    )
                axis.set_title(f"{name}, {'learnt' if trained else 'other'} families")
                axis.set_xlabel("CPU ms per cell")
                axis.set_ylabel("mean error of C11 (%)")
        made.axes[0, 0].legend()
        return made.data_uri()
