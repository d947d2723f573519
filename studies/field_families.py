"""Cells that field surrogates are tested on: of the families that they learnt, and of others."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from microstructures import Microstructure
from microstructures.seeds import derive_seed, generator_for
from physics import IsotropicElastic
from physics.processes import (
    NucleationGrowth,
    PowderBedFusion,
    RandomField,
    SpinodalDecomposition,
    process_points,
)
from physics.processes.grain_growth import voronoi_grains
from studies.run_folder import RunFolder, Stage
from surrogates.evaluation import overlapping_discs

UNSEEN = 4096
"""Process points of the spinodal campaign of seed 1 that no training has reached."""

POISSON_RATIO = 0.3


@dataclass(frozen=True)
class Family:
    """Two-phase cells, and which of the phases are stiff in turn.

    Args:
        name: What they are.
        trained: Whether the shipped nets learnt from cells of this kind (never from these).
        phases: Labels.
        stiff: The stiff phase of each way round that is tested.
    """

    name: str
    trained: bool
    phases: UInt8[Tensor, "cell *space"]
    stiff: tuple[int, ...] = (1, 0)


def kept_families(stage: str, make: Callable[[], list[Family]], run: RunFolder) -> list[Family]:
    """Return families from a stage of the run, made once."""

    def made() -> Stage:
        families = make()
        facts = {"families": [[f.name, f.trained, list(f.stiff)] for f in families]}
        return Stage(facts, {f.name: f.phases.numpy() for f in families})

    found = run.stage(stage, made)
    return [
        Family(name, trained, torch.from_numpy(found.arrays[name]), tuple(stiff))
        for name, trained, stiff in found.facts["families"]
    ]


def phase_materials(contrast: float, stiff: int) -> list[IsotropicElastic]:
    """Return materials of Young's moduli 1 and 1 / contrast (GPa); infinite contrast is a pore."""
    soft = 0.0 if math.isinf(contrast) else 1 / contrast
    return [
        IsotropicElastic(
            youngs_modulus_gpa=1.0 if phase == stiff else soft, poisson_ratio=POISSON_RATIO
        )
        for phase in (0, 1)
    ]


def plane_families(n: int, side: int, *, seed: int) -> list[Family]:
    """Return n cells of each 2-D family."""
    shape = (side, side)
    return [
        Family("spinodal", True, spinodal(n, shape)),
        Family("random field", True, random_fields(n, shape, seed=seed)),
        Family("nucleation and growth", False, spherulites(n, shape, seed=seed)),
        Family("discs", False, overlapping_discs(n, shape=shape, seed=derive_seed(seed, "discs"))),
        Family("Voronoi mosaic", False, mosaics(n, shape, seed=seed)),
        Family("powder bed", False, powder_beds(n, shape, seed=seed), (0,)),
    ]


def volume_families(n: int, side: int, *, seed: int) -> list[Family]:
    """Return n cells of each 3-D family."""
    shape = (side,) * 3
    return [
        Family("spinodal", True, spinodal(n, shape)),
        Family("Voronoi mosaic", False, mosaics(n, shape, seed=seed)),
    ]


def spinodal(n: int, shape: Sequence[int]) -> UInt8[Tensor, "cell *space"]:
    """Return cells at process points that training has not reached."""
    process = SpinodalDecomposition()
    points = process_points(process.space, UNSEEN + n, seed=1)[UNSEEN:]
    return _labels(process.simulate(points, shape=tuple(shape), seed=1, first=UNSEEN))


def random_fields(n: int, shape: Sequence[int], *, seed: int) -> UInt8[Tensor, "cell *space"]:
    """Return cuts of Gaussian fields of both phases."""
    points, own = derive_seed(seed, "random fields"), derive_seed(seed, "cuts")
    return _simulated(RandomField(), n, shape, points=4 * n, seeds=(points, own))


def spherulites(n: int, shape: Sequence[int], *, seed: int) -> UInt8[Tensor, "cell *space"]:
    """Return partly transformed cells of nucleation and growth."""
    points, own = derive_seed(seed, "nucleation"), derive_seed(seed, "spherulites")
    return _simulated(NucleationGrowth(), n, shape, points=8 * n, seeds=(points, own))


def powder_beds(n: int, shape: Sequence[int], *, seed: int) -> UInt8[Tensor, "cell *space"]:
    """Return melted powder beds with 1 to 20 % of pores (phase 1): wide hatch, thick layers.

    They are not periodic; the solver and the nets wrap them alike.
    """
    process = PowderBedFusion()
    points = process_points(process.space, 8 * n, seed=derive_seed(seed, "powder beds"))
    own = derive_seed(seed, "melting")

    def cell(k: int) -> Tensor:
        point = {**points[k % len(points)], "hatch_um": 120.0, "layer_um": 50.0}
        return _labels(process.simulate(point, shape=tuple(shape), seed=own, first=k))[0]

    return _mixed(cell, n, least=0.01, most=0.2)


def mosaics(n: int, shape: Sequence[int], *, seed: int) -> UInt8[Tensor, "cell *space"]:
    """Return Voronoi mosaics of 60 grains, each of a random phase."""
    cells = []
    for k in range(n):
        generator = generator_for(seed, "mosaic", k)
        grains = voronoi_grains(shape, 60, generator=generator)
        colours = torch.rand(60, generator=generator) < 0.5
        cells.append(colours[grains].to(torch.uint8))
    return torch.stack(cells)


def _simulated(
    process: RandomField | NucleationGrowth,
    n: int,
    shape: Sequence[int],
    *,
    points: int,
    seeds: tuple[int, int],
) -> Tensor:
    """Return mixed cells at drawn process points; seeds of the points and of the cells."""
    drawn, own = process_points(process.space, points, seed=seeds[0]), seeds[1]

    def cell(k: int) -> Tensor:
        made = process.simulate(drawn[k % len(drawn)], shape=tuple(shape), seed=own, first=k)
        return _labels(made)[0]

    return _mixed(cell, n, least=0.05)


def _mixed(
    cell: Callable[[int], Tensor], n: int, *, least: float, most: float | None = None
) -> Tensor:
    """Return the first n of cells 0, 1, ... with a share of phase 1 between least and most.

    By default no more of it than leaves the least share to phase 0.
    """
    most = 1 - least if most is None else most
    found, k = [], 0
    while len(found) < n:
        made = cell(k)
        share = float(made.double().mean())
        if least <= share <= most:
            found.append(made)
        k += 1
    return torch.stack(found)


def _labels(cells: Sequence[Microstructure]) -> UInt8[Tensor, "cell *space"]:
    return torch.stack([torch.from_numpy(cell.phases) for cell in cells]).to(torch.uint8)
