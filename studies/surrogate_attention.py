"""A chapter of the surrogates' benchmark: where the property net looks, and where it should."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microstructures.seeds import generator_for
from physics import IsotropicElastic
from studies.bench_chapter import Chapter
from studies.bench_table import Table, plain_row
from studies.figures import draw_map, drawing, outline
from studies.models import load_property_surrogate
from studies.run_folder import RunFolder, Stage
from studies.settings import SurrogateBenchSettings
from studies.shipped_surrogates import weights_key
from studies.surrogate_accuracy import CONTRAST, FIRST_TEST_CELL
from studies.surrogate_cells import family_cells
from surrogates.activation_maps import activation_maps, grad_cam, strongest_channels
from surrogates.saliency import (
    bound_saliency,
    exact_sensitivity,
    map_correlation,
    near_interface,
    net_saliency,
    ranking_score,
    replacement_curve,
    share_inside,
)

SHIPPED = "stiffness-2d"
SHARES = (0.02, 0.05, 0.1, 0.2)
POISSON_RATIO = 0.3
SHOWN = 3
REACH = 2
GRADIENT, EXACT, RANDOM = "net's gradient", "exact sensitivity", "at random"
FIRST_CAM, LAST_CAM = "Grad-CAM, first level", "Grad-CAM, last level"
SIDE = 64


def attention_chapter(settings: SurrogateBenchSettings, run: RunFolder) -> Chapter:
    """Return how the net's gradient agrees with the exact sensitivity, and what it is good for."""
    count = 4 if settings.quick else 48 if settings.tier == "small" else 256
    stage = run.stage(
        f"attention-maps-{count}.{weights_key([SHIPPED])}", lambda: _measure(settings, run, count)
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
            f"{POISSON_RATIO:g}. Grad-CAM (Selvaraju et al. 2017) weighs the channels of an "
            "encoder level by their mean slope; its first level has half the cell's resolution, "
            f"its last 1/{facts['coarseness']}, so that it can tell regions and no voxels; and it "
            "sees the encoder alone, which answers only where C11 lies below the bound of the "
            "first steps, while the gradient passes through that bound too. Deletion: the stiff "
            "voxels "
            "that rank highest become soft; the further C11 falls, the better the ranking. "
            "Insertion: the soft voxels that rank highest become stiff. C11 by the solver, "
            "relative to the untouched cell. Score: the area between a ranking's curve and the "
            "random one, over that of the exact sensitivity. The region, as one that a user "
            f"would mark: the voxels within {REACH} of the interface."
        ),
        tables={
            "Correlation with the exact sensitivity over the voxels of a cell": _correlation_table(
                facts["correlation"]
            ),
            "C11 after deletion (% of its value)": _score_table(facts["deletion"]),
            "C11 after insertion (% of its value)": _score_table(facts["insertion"]),
            "Score of a ranking: 0 at random, 1 the exact sensitivity": _area_table(facts),
            f"Share of the map within {REACH} voxels of the interface (%)": _region_table(
                facts["region"]
            ),
        },
        figures=lambda: {
            "Three cells, the net's gradient, Grad-CAM of two levels, the exact sensitivity": (
                _figure(stage.arrays)
            ),
            "A cell and the channels of the last level that vary most over it": (
                _channels_figure(stage.arrays)
            ),
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
    exact = exact_sensitivity(phases, materials)
    maps = {
        GRADIENT: net_saliency(surrogate, phases, materials),
        "first steps' gradient": bound_saliency(surrogate, phases, materials),
        FIRST_CAM: grad_cam(surrogate, phases, materials, level=0).double(),
        LAST_CAM: grad_cam(surrogate, phases, materials).double(),
    }
    noise = torch.rand(phases.shape, generator=generator_for(settings.seed, "ranking"))
    region = near_interface(phases, REACH)
    facts: dict[str, Any] = {
        "coarseness": surrogate.net.size_multiple,
        "correlation": {
            name: {
                "all voxels": map_correlation(found, exact).tolist(),
                "soft voxels": _within(found, exact, phases == 0).tolist(),
                "stiff voxels": _within(found, exact, phases == 1).tolist(),
            }
            for name, found in maps.items()
        },
        "region": {
            name: share_inside(found, region).tolist()
            for name, found in {**maps, EXACT: exact, "the voxels": torch.ones_like(exact)}.items()
        },
        **_changes(phases, {**maps, EXACT: exact, RANDOM: noise}, materials),
    }
    channels = activation_maps(surrogate, phases[:1], materials)
    strongest = channels[0, strongest_channels(channels, SHOWN)[0]]
    arrays = {"phases": phases, "exact": exact, **maps}
    shown = {key: array[:SHOWN].float().numpy() for key, array in arrays.items()}
    return Stage(facts, {**shown, "channels": strongest.numpy()})


def _changes(
    phases: Tensor, rankings: Mapping[str, Tensor], materials: Sequence[IsotropicElastic]
) -> dict[str, Any]:
    """Return C11 after deletion and insertion by share of every ranking, and their scores."""
    facts: dict[str, Any] = {"score": {}}
    for name, label in (("deletion", 1), ("insertion", 0)):
        curves = {
            kind: replacement_curve(phases, ranking, materials, SHARES, label=label)
            .mean(0)
            .tolist()
            for kind, ranking in rankings.items()
        }
        facts[name] = {
            kind: {f"{share:g}": value for share, value in zip(SHARES, curve, strict=True)}
            for kind, curve in curves.items()
        }
        facts["score"][name] = {
            kind: ranking_score(SHARES, curve, at_random=curves[RANDOM], exact=curves[EXACT])
            for kind, curve in curves.items()
        }
    return facts


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


def _area_table(facts: Mapping[str, Any]) -> Table:
    scores = facts["score"]
    kinds = tuple(kind for kind in scores["deletion"] if kind not in (EXACT, RANDOM))
    rows = [
        plain_row(name, [f"{found[kind]:.2f}" for kind in kinds]) for name, found in scores.items()
    ]
    return Table(kinds, tuple(rows))


def _region_table(found: Mapping[str, list[float]]) -> Table:
    values = [100 * np.array(shares) for shares in found.values()]
    texts = [f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})" for v in values]
    return Table(tuple(found), (plain_row("mean (range over cells)", texts),))


def _figure(arrays: Mapping[str, np.ndarray]) -> str:
    titles = {"phases": "structure", **{key: key for key in (GRADIENT, FIRST_CAM, LAST_CAM)}}
    titles["exact"] = EXACT
    count = len(arrays["phases"])
    with drawing(len(titles), count, width=9.5, height=2.1 * count) as made:
        for row in range(count):
            top = float(np.quantile(arrays["exact"][row], 0.99))
            for column, (key, title) in enumerate(titles.items()):
                highest = 1.0 if key in (FIRST_CAM, LAST_CAM) else top
                options = {"cmap": "viridis", "vmin": 0.0, "vmax": highest}
                if key == "phases":
                    options = {"cmap": "cividis", "vmin": 0, "vmax": 1}
                _draw(made.axes[row, column], arrays[key][row], title, **options)
                if key != "phases":
                    outline(made.axes[row, column], arrays["phases"][row], voxel_size_um=1.0)
        return made.data_uri(dpi=100)


def _channels_figure(arrays: Mapping[str, np.ndarray]) -> str:
    shown = [arrays["phases"][0], *arrays["channels"]]
    titles = ["structure", *(f"channel {k + 1}" for k in range(len(arrays["channels"])))]
    with drawing(len(shown), width=7.2, height=2.1) as made:
        for axis, values, title in zip(made.axes[0], shown, titles, strict=True):
            _draw(axis, values, title, cmap="cividis" if title == "structure" else "viridis")
        return made.data_uri(dpi=100)


def _draw(axis: Any, values: np.ndarray, title: str, **options: Any) -> None:
    draw_map(axis, values, voxel_size_um=1.0, title=title, **options)
    axis.set_xlabel("")
    axis.set_ylabel("")
    axis.set_xticks([])
    axis.set_yticks([])
