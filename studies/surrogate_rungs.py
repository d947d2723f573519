"""A chapter of the surrogates' benchmark: the ladder against the solver alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from physics import IsotropicElastic, effective_stiffness
from physics.mechanics import certify_elastic
from physics.mechanics.discretisation import staggered_problem
from studies.bench_chapter import Chapter
from studies.bench_table import Cell, Row, Table, plain_row
from studies.models import load_property_surrogate, load_surrogate
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from studies.stopwatch import one_thread, race
from studies.surrogate_accuracy import (
    CONTRAST,
    FIRST_TEST_CELL,
    Extent,
    calibration_cells,
    net_settings,
    training_labels,
)
from studies.surrogate_cells import family_cells
from surrogates import FieldRung, PropertyRung, SolverRung, evaluate
from surrogates.descriptor_rung import DescriptorRung
from surrogates.iterated import iterated
from surrogates.ladder import Bracketed, Evaluation, Level, Rung, relative_width

TOLERANCES = (0.05, 0.02, 0.01, 0.001)
POISSON_RATIO = 0.3
CONVERGED = 1e-6
CUT = (1, 2, 3, 5, 8)  # iterations after which the solver is stopped
NETS = ("stiffness-2d", "elastic-2d-fno")


@dataclass(frozen=True)
class StoppedSolver:
    """The solver's conjugate gradients cut short, with the certificate that a field net gets."""

    iterations: int
    name: str = "stopped solver"
    level: Level = "discrete"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return True: the solver takes every shape."""
        return True

    def evaluate(self, phases: Tensor, materials: Sequence, tolerance: float) -> Bracketed:
        """Return the middle of the certificate's bounds after so many iterations."""
        moved = iterated(staggered_problem(phases, materials), None, self.iterations)
        bounds = certify_elastic(phases, materials, displacement=moved)
        sure = torch.ones(len(phases), dtype=torch.bool)
        middle = (bounds.lower + bounds.upper) / 2
        return Bracketed(middle, bounds.lower, bounds.upper, sure, "discrete")


def rungs_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return what each rung costs, which cells it answers, and what the solver alone costs."""
    count, alone = (8, 2) if settings.quick else (128, 16)
    side = Extent.of(settings).side
    key = weights_key(NETS)
    together = run.stage(
        f"rungs-together.{key}", lambda: _measure(settings, run, count, batch=count)
    )
    single = run.stage(f"rungs-single.{key}", lambda: _measure(settings, run, alone, batch=1))
    costs = run.stage(f"rungs-alone.{key}", lambda: _rung_costs(settings, run, count))
    return Chapter(
        name="rungs",
        title="The ladder against the solver alone",
        about=(
            f"Held-out spinodal cells of {side} x {side} voxels, Young's moduli 1 : "
            f"{CONTRAST:g}, Poisson's ratio {POISSON_RATIO:g}. Rungs: descriptor ridge between "
            "Reuss and the bound of two solver steps, calibrated on a fifth of its cells; the "
            "shipped property net stiffness-2d; the shipped field net elastic-2d-fno with its "
            "certificate; the solver. A cell is answered by the first rung whose interval "
            "(widest of the diagonal, relative) is inside the tolerance; costs count every rung "
            "that was asked; one that answers none of the first 8 is not asked about the others. "
            "Milliseconds of process CPU time on one thread, all three loads, the solver in single "
            "precision with bounds in double, at the residual that the tolerance needs."
        ),
        tables={
            "Each rung asked alone, all cells together": _cost_table(costs),
            f"All {count} cells together": _ladder_table(together, judged=True),
            "One cell at a time, as `predict` asks property net and solver": _ladder_table(
                single, judged=False
            ),
        },
        figures=lambda: {"Mean error of C11 against cost, each rung asked alone": _figure(costs)},
        facts={"together": together.facts, "single": single.facts, "alone": costs.facts},
    )


def _rungs(settings: SurrogateBenchSettings, run: RunFolder) -> list[Rung]:
    count = max(number for number, _ in Extent.of(settings).trained)
    labels, held_out = (
        training_labels(count, settings, run),
        calibration_cells(count, settings, run),
    )
    steps = net_settings(count, settings).steps
    return [
        DescriptorRung.fit(labels, held_out, steps=steps),
        PropertyRung(load_property_surrogate(NETS[0])),
        FieldRung(load_surrogate(NETS[1])),
        SolverRung(),
    ]


def _cells(settings: SurrogateBenchSettings, run: RunFolder, count: int) -> Tensor:
    tested = Extent.of(settings).tested
    side = Extent.of(settings).side
    cells = family_cells(run, "spinodal", first=FIRST_TEST_CELL, count=tested, side=side)
    return cells.phases[:count]


def _materials() -> list[IsotropicElastic]:
    return [
        IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=POISSON_RATIO) for e in (1.0, CONTRAST)
    ]


def _measure(settings: SurrogateBenchSettings, run: RunFolder, count: int, *, batch: int) -> Stage:
    phases, materials = _cells(settings, run, count), _materials()
    exact = effective_stiffness(phases, materials, tolerance=CONVERGED).value
    rungs = _rungs(settings, run)
    facts = {}
    with one_thread():
        for tolerance in TOLERANCES:
            _answers(phases[:batch], materials, rungs, tolerance, batch)  # first calls are dearer
            climbed = _answers(phases, materials, rungs, tolerance, batch)
            solved = _answers(phases, materials, rungs[-1:], tolerance, batch)
            short = _answers(phases, materials, [rungs[1], rungs[-1]], tolerance, batch)
            facts[f"{tolerance:g}"] = {
                "shares": {r.name: _share([a.rung == r.name for a in climbed]) for r in rungs},
                "ladder_ms": _mean([a.cpu_ms for a in climbed]),
                "short_ms": _mean([a.cpu_ms for a in short]),
                "solver_ms": _mean([a.cpu_ms for a in solved]),
                "inside": _share([_holds(a, e) for a, e in zip(climbed, exact, strict=True)]),
            }
    return Stage(facts)


def _answers(
    phases: Tensor,
    materials: Sequence[IsotropicElastic],
    rungs: Sequence[Rung],
    tolerance: float,
    batch: int,
) -> list[Evaluation]:
    return [
        answer
        for part in phases.split(batch)
        for answer in evaluate(part, materials, rungs, tolerance=tolerance)
    ]


def _holds(answer: Evaluation, exact: Tensor) -> bool:
    """Return whether the interval of every diagonal entry holds the converged value."""
    low, high, truth = (m.diagonal() for m in (answer.lower, answer.upper, exact))
    return bool(((low <= truth * (1 + CONVERGED)) & (truth * (1 - CONVERGED) <= high)).all())


def _rung_costs(settings: SurrogateBenchSettings, run: RunFolder, count: int) -> Stage:
    """Return cost, width and error of each rung, the solver at two tolerances and cut short."""
    phases, materials = _cells(settings, run, count), _materials()
    exact = effective_stiffness(phases, materials, tolerance=CONVERGED).value[:, 0, 0]
    *nets, solver = _rungs(settings, run)
    works = {rung.name: (rung, 0.01) for rung in nets if rung.accepts(phases.shape[1:])}
    works |= {f"solver, {100 * t:g} %": (solver, t) for t in (0.01, 0.001)}
    works |= {f"{k} iterations": (StoppedSolver(k), 0.01) for k in CUT}
    with one_thread():
        seconds = race(
            {
                name: lambda r=rung, t=tolerance: r.evaluate(phases, materials, t)
                for name, (rung, tolerance) in works.items()
            }
        )
        found = {name: r.evaluate(phases, materials, t) for name, (r, t) in works.items()}
    widths = {name: relative_width(f.lower, f.upper) for name, f in found.items()}
    return Stage(
        {
            name: {
                "ms": 1000 * seconds[name] / count,
                "width": float(widths[name].median()),
                "error": float((found[name].value[:, 0, 0] / exact - 1).abs().mean()),
                "trusted": float(found[name].trusted.double().mean()),
            }
            for name in works
        }
    )


def _figure(stage: Stage) -> str:
    """Return error against cost: a point a rung, the solver cut short as a line."""
    from studies.figures import DESIGN, RIVAL, drawing, plain_log_ticks

    with drawing(1, width=5.0, height=3.2) as made:
        axis = made.axes[0, 0]
        cut = [f for name, f in stage.facts.items() if name.endswith("iterations")]
        axis.plot([f["ms"] for f in cut], [100 * f["error"] for f in cut], "o-", color=RIVAL, ms=3)
        for name, found in stage.facts.items():
            colour = RIVAL if name.startswith("solver") or found in cut else DESIGN
            axis.plot(found["ms"], 100 * found["error"], "o", color=colour, ms=4)
            axis.annotate(
                name, (found["ms"], 100 * found["error"]), (4, 3 if colour == RIVAL else -8),
                textcoords="offset points", fontsize=6, color=colour,
            )  # fmt: skip
        axis.set_yscale("log")
        plain_log_ticks(axis.yaxis)
        axis.set_xlim(right=1.25 * max(f["ms"] for f in stage.facts.values()))
        axis.set_xlabel("CPU ms per cell")
        axis.set_ylabel("mean error of C11 (%)")
        return made.data_uri()


def _cost_table(stage: Stage) -> Table:
    shown = {
        "CPU ms a cell": ("ms", 1, "{:.2f}"),
        "error of C11, mean (%)": ("error", 100, "{:.2g}"),
        "width of the interval, median (%)": ("width", 100, "{:.2g}"),
        "cells inside distance 1 (%)": ("trusted", 100, "{:.0f}"),
    }
    rows = [
        plain_row(title, [form.format(scale * found[key]) for found in stage.facts.values()])
        for title, (key, scale, form) in shown.items()
    ]
    return Table(tuple(stage.facts), tuple(rows))


def _ladder_table(stage: Stage, *, judged: bool) -> Table:
    facts = list(stage.facts.values())
    rows = [
        plain_row(f"answered by {name} (%)", [f"{100 * f['shares'][name]:.0f}" for f in facts])
        for name in facts[0]["shares"]
    ]
    ratios = [f["ladder_ms"] / f["solver_ms"] for f in facts]
    rows += [
        plain_row(
            "converged value inside the interval (%)", [f"{100 * f['inside']:.0f}" for f in facts]
        ),
        plain_row("ladder, CPU ms a cell", [f"{f['ladder_ms']:.2f}" for f in facts]),
        plain_row("property net and solver only", [f"{f['short_ms']:.2f}" for f in facts]),
        plain_row("solver alone, CPU ms a cell", [f"{f['solver_ms']:.2f}" for f in facts]),
        Row(
            "cost of the ladder over the solver's",
            tuple(Cell(f"{r:.2f}", r < 1 if judged else None) for r in ratios),
            asked="below 1" if judged else "",
        ),
    ]
    return Table(tuple(f"within {100 * float(t):g} %" for t in stage.facts), tuple(rows))


def _share(hits: Sequence[bool]) -> float:
    return float(torch.tensor(hits).double().mean())


def _mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values).double().mean())
