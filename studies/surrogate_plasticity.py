"""A chapter of the surrogates' benchmark: elastic-plastic stress fields against the J2 solver."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from microstructures.seeds import derive_seed
from studies.bench_chapter import Chapter
from studies.field_families import Family, plane_families
from studies.plastic_figures import cost_figure, curve_figure, stress_figure
from studies.plastic_race import (
    LEAST_SHARE,
    DrawnTest,
    drawn_test,
    monotone,
    solved_stress,
    stress_errors,
)
from studies.plastic_tables import cost_table, family_table, step_table, verdict, yield_table
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from studies.stopwatch import one_thread, race
from surrogates.plastic_curve import offset_yield_stress
from surrogates.plastic_labels import PlasticRange
from surrogates.plastic_path import PlasticPrediction, PlasticSurrogate

NET = "plastic-2d-unet"
TRAINED = PlasticRange(3.0, 4.0, (0.005, 0.05), (0.25, 0.35), (2.0, 10.0))
"""The range that the shipped weights were trained on."""

TRUTH = 1e-5
FAMILIES = ("spinodal", "random field", "nucleation and growth", "discs", "Voronoi mosaic")
LOOSE = ((1e-2, 1), (3e-2, 1), (0.1, 1), (0.2, 1), (3e-2, 2), (0.1, 2), (0.2, 2))
"""Tolerances of the solver, and how many steps it takes at once, from exact to loose."""


@dataclass(frozen=True)
class Extent:
    """How much is measured: tests and cells of each for errors, and for the race."""

    tests: int
    cells: int
    races: int
    raced: int
    side: int
    loose: tuple[tuple[float, int], ...] = LOOSE

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "Extent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls(2, 1, 1, 2, 16, ((0.03, 1), (0.1, 2)))
        return cls(24, 4, 8, 8, 64) if settings.tier == "full" else cls(4, 2, 2, 8, 64)


def plasticity_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors by family and step, and what net and solver cost at the same error."""
    extent, model = Extent.of(settings), PlasticSurrogate.from_pretrained(NET)
    families = [
        f
        for f in plane_families(extent.tests * extent.cells, extent.side, seed=settings.seed)
        if f.name in FAMILIES
    ]
    outside = replace(TRAINED, yield_contrast=8.0)
    measured = {f.name: _measured(f, TRAINED, model, extent, settings, run) for f in families}
    unloading = _measured(families[0], replace(TRAINED, turning=1.0), model, extent, settings, run)
    beyond = _measured(families[0], outside, model, extent, settings, run)
    everywhere = measured | {
        "spinodal, with unloading": unloading,
        "spinodal, yield stresses to 1 : 8": beyond,
    }
    costs = run.stage(
        f"plasticity.{weights_key([NET])}.costs",
        partial(_raced, families[0], model, extent, settings),
    )
    learnt = {f.name for f in families if f.trained}
    return Chapter(
        name="plasticity",
        title="Elastic-plastic stress fields along a test: net against the J2 solver",
        about=_about(extent, model) + verdict(costs.facts),
        tables={
            "Errors by family": family_table(everywhere, learnt),
            "Error of von Mises stress by step": step_table(everywhere),
            "CPU ms per cell, whole test, one thread": cost_table(costs.facts),
            "Offset yield stress of tension tests (0.2 %)": yield_table(everywhere),
        },
        figures=partial(_figures, costs, measured[families[0].name]),
        facts={"costs": costs.facts, **{k: v.facts for k, v in everywhere.items()}},
    )


def _measured(
    family: Family,
    drawn: PlasticRange,
    model: PlasticSurrogate,
    extent: Extent,
    settings: SurrogateBenchSettings,
    run: RunFolder,
) -> Stage:
    drawing = f"{drawn.turning:.1f}-{drawn.yield_contrast:g}"
    name = f"plasticity.{weights_key([NET])}.{family.name.replace(' ', '-')}-{drawing}"
    # One third of the tests of training unload; here all do or none.
    drawn = drawn if drawn.turning == 1.0 else monotone(drawn)
    return run.stage(name, partial(_errors, family, drawn, model, extent, settings))


def _errors(
    family: Family,
    drawn: PlasticRange,
    model: PlasticSurrogate,
    extent: Extent,
    settings: SurrogateBenchSettings,
) -> Stage:
    found: dict[str, list[Tensor]] = {}
    pictures = {}
    for k in range(extent.tests):
        cells = family.phases[k * extent.cells : (k + 1) * extent.cells]
        test = drawn_test(cells, drawn, steps=model.steps, seed=_seed(settings, k))
        exact = solved_stress(test, tolerance=TRUTH)
        net = model.predict(test.phases, test.materials, test.path)
        bare = model.predict(test.phases, test.materials, test.path, corrected=False)
        share = LEAST_SHARE if drawn.turning == 1.0 else 0.0
        for who, answer in {"net": net, "start": bare}.items():
            errors = stress_errors(answer.stress, exact, least_share=share)
            _append(found, who, dict(zip(("field", "mean"), errors, strict=True)))
            _append(found, who, {"imbalance": answer.imbalance, "distance": answer.distance})
            _append(found, who, {"yield": _yield_errors(test, answer, exact)})
        if k == 0:
            pictures = {"exact": exact[0], "net": net.stress[0], "strain": net.mean_strain[0]}
    arrays = {name: torch.cat(parts).double().numpy() for name, parts in found.items()}
    kept = {f"picture.{name}": tensor.double().numpy() for name, tensor in pictures.items()}
    facts = {f"{who} error": float(arrays[f"{who}.field"].mean()) for who in ("net", "start")}
    return Stage(facts, arrays | kept)


def _append(found: dict[str, list[Tensor]], who: str, parts: Mapping[str, Tensor | None]) -> None:
    for name, tensor in parts.items():
        if tensor is not None:
            found.setdefault(f"{who}.{name}", []).append(tensor)


def _yield_errors(test: DrawnTest, answer: PlasticPrediction, exact: Tensor) -> Tensor:
    """Return the relative errors of the offset yield stress; empty where it is no tension test."""
    axis, targets = test.uniaxial, test.path.targets
    if axis is None or float(targets[-1, axis]) <= 0:
        return torch.empty(0)
    strain = targets[:, axis].expand(len(exact), -1)
    curves = [answer.mean_stress[:, :, axis].double(), exact[:, :, axis].flatten(2).mean(2)]
    ours, truth = (offset_yield_stress(strain, c, answer.modulus.double()) for c in curves)
    return (ours / truth - 1)[torch.isfinite(ours) & torch.isfinite(truth)]


def _raced(
    family: Family, model: PlasticSurrogate, extent: Extent, settings: SurrogateBenchSettings
) -> Stage:
    """Return error and CPU ms per cell of net, start and every looseness, on the same cells."""
    errors: dict[str, list[float]] = {}
    spent: dict[str, list[float]] = {}
    for k in range(extent.races):
        rows = torch.arange(k * extent.raced, (k + 1) * extent.raced) % len(family.phases)
        test = drawn_test(
            family.phases[rows], monotone(TRAINED), steps=model.steps, seed=_seed(settings, 100 + k)
        )
        answers: dict[str, Tensor] = {}
        rivals = {name: partial(_kept, answers, name, work) for name, work in
                  _rivals(test, model, extent.loose).items()}  # fmt: skip
        with one_thread():
            seconds = race(rivals, repetitions=1 if settings.tier == "small" else 3)
        exact = solved_stress(test, tolerance=TRUTH)
        for name, cpu in seconds.items():
            spent.setdefault(name, []).append(1000 * cpu / extent.raced)
            error = stress_errors(answers[name], exact)[0]
            errors.setdefault(name, []).append(float(error.mean()))
    facts = {
        name: {"ms": float(np.mean(spent[name])), "error": float(np.mean(errors[name]))}
        for name in spent
    }
    return Stage({"rivals": facts, "cells": extent.races * extent.raced})


def _rivals(
    test: DrawnTest, model: PlasticSurrogate, loose: Sequence[tuple[float, int]]
) -> dict[str, Callable[[], Tensor]]:
    def predicted(**options: bool) -> Callable[[], Tensor]:
        return lambda: model.predict(test.phases, test.materials, test.path, **options).stress

    rivals = {
        "net": predicted(check=False),
        "net, imbalance measured": predicted(),
        "start and law, no net": predicted(check=False, corrected=False),
    }
    for tolerance, every in loose:
        name = f"solver, tolerance {tolerance:g}, {model.steps // every} steps"
        rivals[name] = partial(solved_stress, test, tolerance=tolerance, every=every)
    return rivals


def _kept(answers: dict[str, Tensor], name: str, work: Callable[[], Tensor]) -> None:
    answers[name] = work()


def _about(extent: Extent, model: PlasticSurrogate) -> str:
    return (
        f"Periodic cells of {extent.side} x {extent.side} voxels, plane strain, two phases with "
        "straight hardening curves: shear moduli to 1 : 3 and yield stresses to 1 : 4 either way, "
        "plastic over Young's moduli 0.005 to 0.05; half of the tests tension or compression, "
        "half a mean strain in a random direction, up to 2 to 10 mean yield strains in "
        f"{model.steps} steps; {extent.tests} draws of materials and test per family, "
        f"{extent.cells} cells each, none of them trained on. Error of von Mises stress: mean over "
        "voxels, steps and cells of |q - q*| / q* (MAPE, a lenient measure: where a phase flows q "
        "is its yield stress, whatever the strain), q* by `solve_plasticity`'s own steps at "
        f"tolerance {TRUTH:g} and the same load steps; with unloading q* is taken as at least "
        f"{LEAST_SHARE:g} of the cell's mean. Mean curve: |<s> - <s*>| over the largest |<s*>|. "
        "The start is a secant solver's few iterations with the law, which the net corrects. The "
        f"solver's looser runs interpolate between their steps. Race: {extent.races} draws, "
        f"{extent.raced} spinodal cells each, one thread, same cells, same run, whole test."
    )


def _figures(costs: Stage, stage: Stage) -> dict[str, str]:
    exact, net = stage.arrays["picture.exact"], stage.arrays["picture.net"]
    return {
        "Error against cost": cost_figure(costs.facts["rivals"]),
        "Von Mises stress at the last step of one cell": stress_figure(exact, net),
        "Mean stress of that cell": curve_figure(stage.arrays["picture.strain"], exact, net),
    }


def _seed(settings: SurrogateBenchSettings, k: int) -> int:
    return derive_seed(settings.seed, "plasticity", k)
