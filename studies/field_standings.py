"""A race of field nets and the stopped solver: who is cheaper at equal error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from studies.bench_table import Cell, Table, plain_row
from studies.field_families import Family
from studies.field_race import METRICS, Start, cheapest, raced_costs, raced_errors
from studies.run_folder import RunFolder, Stage

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
        errors = found.mean("estimate", trained=trained)
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
        errors = found.mean("estimate", trained=trained)
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


def race_facts(found: Raced) -> dict:
    """Return the race as plain data: means by family and metric, and costs."""
    means = {
        family: {m: errors[m].mean(-1).tolist() for m in METRICS}
        for family, errors in found.errors.items()
    }
    worst = {f: errors["estimate"].max(-1).tolist() for f, errors in found.errors.items()}
    return {
        "starts": list(found.starts),
        "iterations": list(found.iterations),
        "cpu_ms": found.costs.tolist(),
        "means": means,
        "highest_error": worst,
        "brackets_broken": int(sum(e["broken"].sum() for e in found.errors.values())),
    }


def race_figure(found: Mapping[str, Raced]) -> str:
    """Return error against cost, a column per race, a row for families learnt and not."""
    from studies.figures import DESIGN, RIVAL, TARGET, drawing

    colours = (RIVAL, DESIGN, TARGET)
    with drawing(len(found), 2, width=3.6 * len(found), height=5.2) as made:
        for column, (name, one) in enumerate(found.items()):
            for row, trained in enumerate((True, False)):
                axis = made.axes[row, column]
                errors = one.mean("estimate", trained=trained)
                for k, start in enumerate(one.starts):
                    axis.semilogy(
                        one.costs[k], 100 * errors[k], "o-", ms=3, color=colours[k], label=start
                    )
                axis.set_title(f"{name}, {'learnt' if trained else 'other'} families")
                axis.set_xlabel("CPU ms per cell")
                axis.set_ylabel("mean error of C11 (%)")
        made.axes[0, 0].legend()
        return made.data_uri()


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
