"""What a path surrogate learns from: cells, materials and tests drawn for each, solved strains."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from microstructures import ConvergenceError
from microstructures.seeds import generator_for
from physics.mechanics.equilibrium import NewtonSettings
from physics.mechanics.hardening import LinearHardening
from physics.mechanics.load_stepping import SteppedCells
from physics.mechanics.radial_return import PlasticLaw
from surrogates.familiarity import Familiarity, describe
from surrogates.kept_labels import kept_labels
from surrogates.plastic_cells import PlasticCells, scaled_moduli, voxel_moduli
from surrogates.plastic_start import SecantStart, cell_problem

KIND = "plastic labels"
CELLS_AT_ONCE = 4
UNIAXIAL_SHARE = 0.5
SPHERICAL_SHARE = 0.2  # of a drawn strain's trace that is kept
STEEPEST_SPACING = 2.0  # steps at (k / steps)^g, g from 1 to this


@dataclass(frozen=True)
class PlasticRange:
    """From which materials and tests are drawn.

    Shear moduli and yield stresses of phases 1, 2, ... over those of phase 0 are log-uniform up to
    these factors either way, plastic over Young's moduli log-uniform and Poisson's ratios uniform
    between theirs. The largest strain of a test is log-uniform between multiples of the cell's
    mean yield strain sigma_0 / (3 G); a share `turning` of the tests unloads after it.
    """

    modulus_contrast: float
    yield_contrast: float
    hardening: tuple[float, float]
    poisson_ratio: tuple[float, float]
    amplitude: tuple[float, float]
    turning: float = 1 / 3

    def phase_table(self, u: Float[Tensor, "cell 4 phase"]) -> Float[Tensor, "cell 4 phase"]:
        """Return bulk, shear, yield stress and plastic modulus of uniform numbers."""
        sign = 2 * u[:, :2] - 1
        sign[:, :, 0] = 0
        shear = self.modulus_contrast ** sign[:, 0]
        first = self.yield_contrast ** sign[:, 1]
        low, high = self.poisson_ratio
        nu = low + (high - low) * u[:, 2]
        soft, steep = self.hardening
        slope = soft * (steep / soft) ** u[:, 3]
        bulk = shear * 2 * (1 + nu) / (3 * (1 - 2 * nu))
        return torch.stack([bulk, shear, first, slope * shear * 2 * (1 + nu)], 1)


@dataclass(frozen=True)
class PlasticLabels:
    """Labelled cells with their materials, path, start and solved strains.

    Everything is in each cell's own units (`PlasticCells`).
    """

    phases: UInt8[Tensor, "cell *space"]
    table: Float[Tensor, "cell 4 phase"]
    target: Float[Tensor, "cell n"]
    driven: Bool[Tensor, "cell n"]
    multipliers: Float[Tensor, "cell step"]
    elastic: Float[Tensor, "cell n *space"]
    secant: Float[Tensor, "cell n *space"]
    strain: Float[Tensor, "cell step n *space"]

    def __len__(self) -> int:
        return len(self.phases)

    def cells(self, which: Tensor) -> PlasticCells:
        """Return some of the cells, without their solved strains."""
        return PlasticCells(
            voxel_moduli(self.phases[which], self.table[which]),
            self.elastic[which],
            self.secant[which],
            self.target[which],
            self.driven[which],
            self.multipliers[which],
        )

    def familiarity(self) -> Familiarity:
        """Return the distance from these cells with their materials."""
        rows = torch.arange(len(self)).split(64)
        entries = [
            describe(described(voxel_moduli(self.phases[part], self.table[part]))) for part in rows
        ]
        return Familiarity.fit(torch.cat(entries), tuple(self.phases.shape[1:]))


def described(moduli: Float[Tensor, "batch 4 *space"]) -> Float[Tensor, "batch 2 *space"]:
    """Return what a path surrogate's distance looks at: shear modulus, and yield stress first."""
    return moduli[:, 1:3]


def solved_plastic_labels(
    phases: UInt8[Tensor, "cell *space"],
    materials: PlasticRange,
    folder: Path,
    *,
    n_phases: int,
    steps: int,
    start: SecantStart,
    tolerance: float,
    seed: int,
    identity: dict[str, Any],
) -> PlasticLabels:
    """Return the solver's labels, from `folder` if they were solved before.

    Cells whose test the solver cannot follow are left out.

    Raises:
        DataError: `folder` holds the labels of other cells or materials.
        CheckpointError: `folder` was damaged.
    """

    def solved() -> dict[str, Tensor]:
        drawn = drawn_tests(
            phases, materials, n_phases=n_phases, steps=steps, start=start, seed=seed
        )
        labels = with_solved_strain(drawn, tolerance=tolerance)
        return {entry.name: getattr(labels, entry.name) for entry in fields(labels)}

    return PlasticLabels(**kept_labels(folder, solved, kind=KIND, identity=identity))


def drawn_tests(
    phases: UInt8[Tensor, "cell *space"],
    materials: PlasticRange,
    *,
    n_phases: int,
    steps: int,
    start: SecantStart,
    seed: int,
) -> PlasticLabels:
    """Return cells with materials and a test each, drawn by (seed, cell) alone; not yet solved."""
    dim = phases.ndim - 1
    generators = [generator_for(seed, "plastic", k) for k in range(len(phases))]
    table = materials.phase_table(
        torch.stack([torch.rand(4, n_phases, generator=g) for g in generators])
    )
    moduli, units = scaled_moduli(voxel_moduli(phases, table))
    unit = torch.stack([units.modulus, units.modulus, units.stress, units.modulus], 1)
    table = table / unit.unsqueeze(2)
    onset = (moduli[:, 2] / (3 * moduli[:, 1])).flatten(1).mean(1)
    low, high = materials.amplitude
    tests = [_drawn_test(dim, steps, materials.turning, g) for g in generators]
    direction, driven, multipliers, u = (torch.stack(part) for part in zip(*tests, strict=True))
    target = direction * (onset * low * (high / low) ** u).unsqueeze(1)
    rows = [slice(k, k + 1) for k in range(len(phases))]
    found = [start.strains(moduli[k], target[k], driven[k.start]) for k in rows]
    elastic, secant = (torch.cat(part) for part in zip(*found, strict=True))
    return PlasticLabels(
        phases=phases,
        table=table,
        target=target,
        driven=driven,
        multipliers=multipliers,
        elastic=elastic,
        secant=secant,
        strain=torch.zeros(()).expand(len(phases), steps, *elastic.shape[1:]),
    )


def _drawn_test(
    dim: int, steps: int, turning: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return direction, what is driven, multipliers, and a uniform number for the amplitude."""
    n = dim * (dim + 1) // 2
    u = torch.rand(8, generator=generator)
    direction = torch.randn(n, generator=generator)
    driven = torch.ones(n, dtype=torch.bool)
    if u[0] < UNIAXIAL_SHARE:
        axis = int(u[1] * dim)
        driven = torch.arange(n) == axis
        direction = driven * (1.0 if u[2] < 0.5 else -1.0)
    else:
        direction[:dim] -= (1 - SPHERICAL_SHARE) * direction[:dim].mean()
        direction = direction / direction.norm()
    turn = int(steps * (0.5 + 0.25 * u[4])) if u[3] < turning else steps
    rise = (torch.arange(1, turn + 1) / turn) ** (1 + (STEEPEST_SPACING - 1) * u[5])
    end = 0.7 - u[6]
    fall = 1 + (end - 1) * torch.arange(1, steps - turn + 1) / max(1, steps - turn)
    return direction, driven, torch.cat([rise, fall]), u[7]


def with_solved_strain(drawn: PlasticLabels, *, tolerance: float) -> PlasticLabels:
    """Return labels with the solver's strains; cells that it cannot follow are left out."""
    strain: list[Tensor] = []
    kept: list[int] = []
    for control in drawn.driven.unique(dim=0):
        alike = (drawn.driven == control).all(1).nonzero().flatten()
        for part in alike.split(CELLS_AT_ONCE):
            for which in _followed(drawn, part, tolerance, strain):
                kept += which.tolist()
    order = torch.tensor(kept).argsort()
    rows = torch.tensor(kept)[order]
    rest = {e.name: getattr(drawn, e.name)[rows] for e in fields(drawn) if e.name != "strain"}
    return PlasticLabels(**rest, strain=torch.cat(strain)[order])


def _followed(
    drawn: PlasticLabels, part: Tensor, tolerance: float, strain: list[Tensor]
) -> list[Tensor]:
    """Append the strains of these cells, together or one by one; return which were followed."""
    moduli = voxel_moduli(drawn.phases[part], drawn.table[part]).double()
    targets = drawn.multipliers[part, :, None].double() * drawn.target[part, None].double()
    laws = (drawn.phases[part], drawn.table[part])
    try:
        fields_ = followed_strain(moduli, *laws, targets, drawn.driven[part[0]], tolerance)
    except ConvergenceError:
        if len(part) == 1:
            return []
        alone = [_followed(drawn, one, tolerance, strain) for one in part.split(1)]
        return [which for found in alone for which in found]
    strain.append(fields_.float())
    return [part]


@torch.no_grad()
def followed_strain(
    moduli: Float[Tensor, "batch 4 *space"],
    phases: Integer[Tensor, "batch *space"],
    table: Float[Tensor, "batch 4 phase"],
    targets: Float[Tensor, "batch step n"],
    driven: Bool[Tensor, " n"],
    tolerance: float,
) -> Float[Tensor, "batch step n *space"]:
    """Return the solver's strain after every step, each cell with materials of its own.

    `solve_plasticity` with its default scheme, but for the fields of every step, any tolerance,
    and one reference material for all cells.

    Raises:
        ConvergenceError: A step failed at its shortest.
    """
    cells = stepped_cells(phases, table, tolerance, moduli)
    state, found = cells.unloaded(), []
    for step in range(targets.shape[1]):
        state = cells.advance(state, targets[:, step], driven, step)
        found.append(state.trial.strain[:, 0])
    return torch.stack(found, 1)


def stepped_cells(
    phases: Integer[Tensor, "batch *space"],
    table: Float[Tensor, "batch 4 phase"],
    tolerance: float,
    moduli: Float[Tensor, "batch 4 *space"] | None = None,
) -> SteppedCells:
    """Return cells to be followed by the solver, each with the materials of its own table."""
    moduli = voxel_moduli(phases, table).double() if moduli is None else moduli
    n_phases = table.shape[2]
    # Each phase of each cell is a phase of its own to the law.
    own = phases.long() + n_phases * torch.arange(len(phases)).view(-1, *[1] * (phases.ndim - 1))
    curves = [
        LinearHardening(yield_stress_gpa=first, modulus_gpa=slope)
        for first, slope in table[:, 2:].movedim(1, 2).flatten(0, 1).tolist()
    ]
    law = PlasticLaw(moduli[:, None, 0], moduli[:, None, 1], own.unsqueeze(1), tuple(curves))
    settings = NewtonSettings(tolerance, max_newton=20, max_iterations=2000)
    return SteppedCells(cell_problem(moduli), law, settings, max_halvings=6)
