"""A chapter of the surrogates' benchmark: where the property net looks, and where it should."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures.seeds import generator_for
from physics import IsotropicElastic, effective_stiffness
from studies.bench_chapter import Chapter
from studies.bench_table import Table, plain_row
from studies.figures import draw_map, drawing, outline
from studies.models import load_property_surrogate
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from studies.surrogate_accuracy import CONTRAST, FIRST_TEST_CELL
from studies.surrogate_cells import family_cells
from surrogates.saliency import (
    bound_saliency,
    exact_sensitivity,
    map_correlation,
    net_saliency,
    replaced,
)

SHIPPED = "stiffness-2d"
SHARES = (0.02, 0.05, 0.1, 0.2)
POISSON_RATIO = 0.3
SHOWN = 3
SIDE = 64


def attention_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return how the net's gradient agrees with the exact sensitivity, and what it is good for."""
    count = 4 if settings.quick else 48 if settings.tier == "small" else 256
    stage = run.stage(
        f"attention-{count}.{weights_key([SHIPPED])}", lambda: _measure(settings, run, count)
    )
    facts = stage.facts
    return Chapter(
        name="attention",
        title="Where the property net looks",
        about=(
            f"d C11 / d (fraction of the stiff phase) of every voxel: the gradient of {SHIPPED} "
            "against the solver's strain : dC/df : strain (Voigt's rule in a voxel); beside it "
            "the gradient of the bound of two solver steps, which the net starts from. On "
            f"{count} held-out spinodal cells, Young's moduli 1 : {CONTRAST:g}, Poisson's ratio "
            f"{POISSON_RATIO:g}. Deletion: the stiff voxels that rank highest become soft; the "
            "further C11 falls, the better the ranking. Insertion: the soft voxels that rank "
            "highest become stiff. C11 by the solver, relative to the untouched cell."
        ),
        tables={
            "Correlation with the exact sensitivity over the voxels of a cell": _correlation_table(
                facts["correlation"]
            ),
            "C11 after deletion (% of its value)": _score_table(facts["deletion"]),
            "C11 after insertion (% of its value)": _score_table(facts["insertion"]),
        },
        figures=lambda: {
            "Three cells, the net's gradient, the exact sensitivity": _figure(stage.arrays)
        },
        facts=facts,
    )


def _measure(settings: SurrogateBenchSettings, run: RunFolder, count: int) -> Stage:
    cells = family_cells(run, "spinodal", first=FIRST_TEST_CELL, count=count, side=SIDE)
    phases = cells.phases
    materials = [
        IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=POISSON_RATIO) for e in (1.0, CONTRAST)
    ]
    surrogate = load_property_surrogate(SHIPPED)
    net = net_saliency(surrogate, phases, materials)
    bound = bound_saliency(surrogate, phases, materials)
    exact = exact_sensitivity(phases, materials)
    noise = torch.rand(phases.shape, generator=generator_for(settings.seed, "ranking"))
    rankings = {
        "net's gradient": net,
        "first steps' gradient": bound,
        "exact sensitivity": exact,
        "at random": noise,
    }
    facts: dict[str, Any] = {
        "correlation": {
            name: {
                "all voxels": map_correlation(found, exact).tolist(),
                "soft voxels": _within(found, exact, phases == 0).tolist(),
                "stiff voxels": _within(found, exact, phases == 1).tolist(),
            }
            for name, found in (("net's gradient", net), ("first steps' gradient", bound))
        }
    }
    before = effective_stiffness(phases, materials).value[:, 0, 0]
    for name, label in (("deletion", 1), ("insertion", 0)):
        facts[name] = {
            kind: {
                f"{share:g}": _remaining(phases, ranking, label, share, materials, before)
                for share in SHARES
            }
            for kind, ranking in rankings.items()
        }
    arrays = {"phases": phases, "net": net.float(), "exact": exact.float()}
    return Stage(facts, {key: array[:SHOWN].numpy() for key, array in arrays.items()})


def _remaining(
    phases: Tensor,
    ranking: Tensor,
    label: int,
    share: float,
    materials: Sequence[IsotropicElastic],
    before: Tensor,
) -> float:
    changed = replaced(phases, ranking, label=label, share=share)
    after = effective_stiffness(changed, materials, tolerance=1e-3).value[:, 0, 0]
    return float((after / before).mean())


def _within(a: Tensor, b: Tensor, where: Tensor) -> Tensor:
    """Return the correlation over the chosen voxels of each cell."""
    return torch.stack(
        [
            torch.corrcoef(torch.stack([x[mask].double(), y[mask].double()]))[0, 1]
            for x, y, mask in zip(a, b, where, strict=True)
        ]
    )


def _correlation_table(found: Mapping[str, Mapping[str, list[float]]]) -> Table:
    """Return mean and range over cells, by gradient and phase."""
    rows = []
    for where in next(iter(found.values())):
        values = [np.array(column[where]) for column in found.values()]
        texts = [f"{v.mean():.3f} ({v.min():.3f} to {v.max():.3f})" for v in values]
        rows.append(plain_row(f"{where}: mean (range over cells)", texts))
    return Table(tuple(found), tuple(rows))


def _score_table(found: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        plain_row(f"first {100 * s:g} %", [f"{100 * v[f'{s:g}']:.1f}" for v in found.values()])
        for s in SHARES
    ]
    return Table(tuple(found), tuple(rows))


def _figure(arrays: Mapping[str, np.ndarray]) -> str:
    titles = {"phases": "structure", "net": "net's gradient", "exact": "exact sensitivity"}
    count = len(arrays["phases"])
    with drawing(3, count, width=7.2, height=2.3 * count) as made:
        for row in range(count):
            top = float(np.quantile(arrays["exact"][row], 0.99))
            for column, (key, title) in enumerate(titles.items()):
                axis = made.axes[row, column]
                options = {"cmap": "viridis", "vmin": 0.0, "vmax": top}
                if key == "phases":
                    options = {"cmap": "cividis", "vmin": 0, "vmax": 1}
                draw_map(axis, arrays[key][row], voxel_size_um=1.0, title=title, **options)
                axis.set_xlabel("")
                axis.set_ylabel("")
                axis.set_xticks([])
                axis.set_yticks([])
                if key != "phases":
                    outline(axis, arrays["phases"][row], voxel_size_um=1.0)
        return made.data_uri(dpi=100)
