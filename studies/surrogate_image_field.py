"""A chapter of the surrogates' benchmark: stress straight from the image, cracks and walls too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import spearmanr

from studies.bench_chapter import Chapter
from studies.bench_table import Table, plain_row
from studies.field_families import Family, kept_families, plane_families
from studies.image_field_figures import error_figure
from studies.image_field_race import (
    CRITIC,
    NET,
    RACED_CONTRAST,
    TRAINED,
    TRUTH,
    TWIN,
    cheapest_solver,
    measured,
    raced,
)
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from surrogates.image_cells import KINDS, Kind
from surrogates.image_fields import ImageFieldSurrogate
from surrogates.quantities import MaterialRange

OUTSIDE = MaterialRange((100.0, 100.0), (0.2, 0.4))
TOLERANCES = (0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3)


@dataclass(frozen=True)
class Extent:
    """Cells of each family and kind, their side, cells in the race, and its repetitions."""

    cells: int
    side: int
    raced: int
    repetitions: int
    tolerances: tuple[float, ...] = TOLERANCES

    @classmethod
    def of(cls, settings: SurrogateBenchSettings) -> "Extent":
        """Return the extent of a tier."""
        if settings.quick:
            return cls(1, 32, 2, 1, (0.5, 0.1))
        return cls(64, 64, 32, 3) if settings.tier == "full" else cls(12, 64, 16, 2)


def image_field_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return errors by kind and family, what the critic does, and what net and solver cost."""
    extent, key = Extent.of(settings), weights_key([NET, TWIN])
    models = {name: ImageFieldSurrogate.from_pretrained(name) for name in (NET, TWIN)}
    families = kept_families(
        "image-field.cells",
        lambda: plane_families(extent.cells, extent.side, seed=settings.seed),
        run,
    )
    found: dict[tuple[str, Kind], Stage] = {}
    for family in families:
        for kind in KINDS:
            stage = f"image-field.{key}.{family.name}-{kind}".replace(" ", "-")
            found[family.name, kind] = run.stage(
                stage, partial(measured, family, kind, TRAINED, models, settings.seed)
            )
    outside: dict[Kind, Stage] = {
        kind: run.stage(
            f"image-field.{key}.outside-{kind}".replace(" ", "-"),
            partial(measured, families[0], kind, OUTSIDE, models, settings.seed),
        )
        for kind in KINDS
    }
    costs = run.stage(
        f"image-field.{key}.costs",
        partial(
            raced,
            families[0],
            models[NET],
            extent.tolerances,
            cells=extent.raced,
            repetitions=extent.repetitions,
            seed=settings.seed,
        ),
    ).facts
    learnt = {f.name for f in families if f.trained}
    whole = _twins(found, learnt)
    correlation, far = _distance_verdict([*found.values(), *outside.values()])
    return Chapter(
        name="image-field",
        title="Stress straight from the image: cracks, free sides, grips",
        about=_about(extent) + _critic_verdict(whole) + _cost_verdict(costs) + far,
        tables={
            "Errors by kind of case": _kind_table(found, learnt),
            "Errors by family": _family_table(found, learnt),
            "Contrast 100, outside the trained 1 to 30": _outside_table(found, outside, families),
            "Does the critic help? The same net, data and steps": _twin_table(whole),
            "CPU ms per cell, one thread: net and solver at its error": _cost_table(costs),
        },
        figures=lambda: {
            "Von Mises stress in tension (units of its root mean square by the solver), and the "
            "error map of the stress tensor: a cracked cell, a bar with free sides, a specimen "
            "between grips.": error_figure([found[families[0].name, k].arrays for k in KINDS[1:]])
        },
        facts={"twins": whole, "costs": costs, "rank_correlation": correlation},
    )


def _of(stages: Sequence[Stage], net: str, metric: str) -> np.ndarray:
    return np.concatenate([stage.arrays[f"{net}.{metric}"] for stage in stages])


def _error_row(name: str, stages: Sequence[Stage]) -> tuple[str, list[str]]:
    l2, p99 = _of(stages, NET, "l2"), _of(stages, NET, "p99")
    return name, [
        f"{_percent(l2.mean())} ({_percent(l2.max())})",
        _percent(_of(stages, NET, "mape").mean()),
        _percent(np.abs(p99).mean()),
        _percent(p99.mean()),
        f"{_percent(_of(stages, NET, 'imbalance').mean())} "
        f"({_percent(_of(stages, 'solver', 'imbalance').mean())})",
        f"{np.median(_of(stages, NET, 'distance')):.2f}",
        str(len(l2)),
    ]


COLUMNS = (
    "stress, relative L2 (worst cell)",
    "von Mises, MAPE",
    "99th percentile, error",
    "99th percentile, bias",
    "imbalance (solver's own at centres)",
    "distance (median)",
    "cells",
)


def _kind_table(found: Mapping[tuple[str, Kind], Stage], learnt: set[str]) -> Table:
    rows = []
    for kind in KINDS:
        for known in (True, False):
            stages = [s for (f, k), s in found.items() if k == kind and (f in learnt) == known]
            label = f"{kind}, families {'learnt' if known else 'not learnt'}"
            rows.append(plain_row(*_error_row(label, stages)))
    return Table(COLUMNS, tuple(rows))


def _family_table(found: Mapping[tuple[str, Kind], Stage], learnt: set[str]) -> Table:
    rows = []
    for family in dict.fromkeys(family for family, _ in found):
        stages = [stage for (name, _), stage in found.items() if name == family]
        label = f"{family}, {'learnt' if family in learnt else 'not learnt'}"
        rows.append(plain_row(*_error_row(label, stages)))
    return Table(COLUMNS, tuple(rows))


def _outside_table(
    found: Mapping[tuple[str, Kind], Stage],
    outside: Mapping[Kind, Stage],
    families: Sequence[Family],
) -> Table:
    rows = []
    for kind, stage in outside.items():
        rows.append(plain_row(*_error_row(f"{kind}, 1 to 30", [found[families[0].name, kind]])))
        rows.append(plain_row(*_error_row(f"{kind}, 100", [stage])))
    return Table(COLUMNS, tuple(rows))


def _twins(
    found: Mapping[tuple[str, Kind], Stage], learnt: set[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the metrics of both nets over the families learnt and the others."""
    facts = {}
    for known, label in ((True, "learnt"), (False, "not learnt")):
        stages = [s for (f, _), s in found.items() if (f in learnt) == known]
        facts[label] = {
            net: {
                "l2": float(_of(stages, net, "l2").mean()),
                "mape": float(_of(stages, net, "mape").mean()),
                "p99 error": float(np.abs(_of(stages, net, "p99")).mean()),
                "p99 bias": float(_of(stages, net, "p99").mean()),
                "imbalance": float(_of(stages, net, "imbalance").mean()),
                # Medians: in an all but homogeneous cell there is nothing to be sharp about.
                "sharpness": float(np.median(_of(stages, net, "sharpness"))),
                "fine power": float(np.median(_of(stages, net, "fine"))),
            }
            for net in (NET, TWIN)
        }
    return facts


def _twin_table(whole: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    rows = []
    for label, nets in whole.items():
        for metric in nets[NET]:
            ratio = metric in ("sharpness", "fine power")
            texts = [f"{n[metric]:.2f}" if ratio else _percent(n[metric]) for n in nets.values()]
            name = f"{metric} over the solver's" if ratio else metric
            rows.append(plain_row(f"{name}, families {label}", texts))
    return Table(tuple(CRITIC[net] for net in (NET, TWIN)), tuple(rows))


def _cost_table(costs: Mapping) -> Table:
    rows = []
    for kind in KINDS:
        rivals = costs[kind]
        net, chosen = rivals["net"], cheapest_solver(rivals)
        texts = [f"{net['ms']:.3g}", _percent(net["error"])]
        if chosen is None:
            texts += ["-", "none as exact", "-", "-"]
        else:
            best = rivals[chosen]
            texts += [f"{best['ms']:.3g}", _percent(best["error"]), chosen]
            texts.append(f"{best['ms'] / net['ms']:.2f}")
        fine = rivals[list(rivals)[-1]]
        texts.append(f"{fine['ms']:.3g} ({_percent(fine['error'])})")
        rows.append(plain_row(kind, texts))
    columns = (
        "net, CPU ms",
        "net, error",
        "cheapest solver as exact, CPU ms",
        "its error",
        "its tolerance",
        "its cost over the net's",
        "solver at the finest tolerance, CPU ms (error)",
    )
    return Table(columns, tuple(rows))


def _critic_verdict(whole: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    parts = []
    for label, nets in whole.items():
        with_, without = nets[NET], nets[TWIN]
        parts.append(
            f"on families {label} the critic takes the fine power of von Mises stress from "
            f"{without['fine power']:.2f} to {with_['fine power']:.2f} of the solver's, the error "
            f"of its 99th percentile from {_percent(without['p99 error'])} to "
            f"{_percent(with_['p99 error'])}, the relative L2 error of the stress from "
            f"{_percent(without['l2'])} to {_percent(with_['l2'])}"
        )
    return (
        f" Does the critic help? {'; '.join(parts)}. Each net was trained once: how much two "
        "trainings differ by chance was not measured."
    )


def _cost_verdict(costs: Mapping) -> str:
    parts = []
    for kind in KINDS:
        chosen = cheapest_solver(costs[kind])
        if chosen is None:
            parts.append(f"{kind}: no tolerance that was tried is as exact")
            continue
        net, finest = costs[kind]["net"], costs[kind][list(costs[kind])[-1]]
        times, whole = (r["ms"] / net["ms"] for r in (costs[kind][chosen], finest))
        who = "the net wins" if times > 1 else "the solver wins"
        parts.append(
            f"{kind}, {_percent(net['error'])}: {times:.2f} times the net's cost ({who}); and "
            f"{whole:.2f} times when solved to {_percent(finest['error'])}"
        )
    return f" What our own solver costs, stopped at the net's error: {'; '.join(parts)}."


def _distance_verdict(stages: Sequence[Stage]) -> tuple[float, str]:
    """Return the rank correlation of distance and error over all cells, and say it."""
    correlation = float(spearmanr(_of(stages, NET, "distance"), _of(stages, NET, "l2"))[0])  # pyright: ignore
    return correlation, (
        " Rank correlation of the distance with the relative L2 error, over all cells here: "
        f"{correlation:.2f}."
    )


def _about(extent: Extent) -> str:
    return (
        f"{NET}: one evaluation of a U-Net, no solver step, no certificate. {extent.cells} cells "
        f"of {extent.side} x {extent.side} voxels for each family and kind: periodic; with 1 to 3 "
        "cracks (pores 1 or 2 voxels thin, straight or kinked); bars with free sides (a strip of "
        "pore); specimens between grips ten times as stiff as the stiffest phase, their sides "
        "free; half of the latter two cracked. Young's moduli 1 : 1 to 1 : 30 either way, "
        "Poisson's ratios 0.2 to 0.4, drawn for each cell; the powder bed's phase 1 is pore. "
        f"Truth: the staggered solver at residual {TRUTH:g}. Relative L2: all three unit loads "
        "together. Von Mises stress (plane strain) of the unit tension under which the cell is "
        "stressed the more: mean over solid voxels of |q - q*| / q*, q* at least a tenth of its "
        "mean; imbalance under that load. Sharpness: mean gradient of von Mises stress; fine "
        "power: its power at wavelengths "
        f"below 8 voxels. Race: {extent.raced} spinodal cells of each kind in a batch, contrast "
        f"{RACED_CONTRAST:g}, float32, all unit loads that do anything: three, but one of bars and "
        "specimens, whose stress the solver need not find under the others."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
