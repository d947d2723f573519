"""What an image-to-field net learns from: cases, materials drawn for each, solved stress fields."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from microstructures import ConvergenceError, DataError
from microstructures.seeds import generator_for
from physics import IsotropicElastic, solve_elasticity
from surrogates.familiarity import Familiarity, describe
from surrogates.image_cells import KINDS, CaseShares, Kind, cell_of_kind
from surrogates.kept_labels import kept_labels
from surrogates.quantities import MaterialRange, Stiffness, local_moduli

KIND = "stress labels"
CELLS_AT_ONCE = 8
GRIP_STIFFNESS = 10.0  # Young's modulus over the stiffest phase's
GRIP_POISSON_RATIO = 0.3
PORE_SHARE = 0.1  # of the softest solid's moduli: what a pore counts as where cells are compared


@dataclass(frozen=True)
class ImageLabels:
    """Cells, the moduli of each label, and the solved stress of every unit load.

    `moduli` are bulk (2-D: plane strain) and shear modulus of each label in units of the cell's
    own `stress_unit`, the stress likewise; float16, good to 5e-4. `kind` is a place in `KINDS`.
    """

    phases: UInt8[Tensor, "cell *space"]
    moduli: Float[Tensor, "cell 2 label"]
    kind: Int[Tensor, " cell"]
    stress: Float[Tensor, "cell load n *space"]

    def __len__(self) -> int:
        return len(self.phases)

    def familiarity(self) -> Familiarity:
        """Return the distance from these cells with their materials."""
        entries = [
            describe(described(local_moduli(self.phases[part], self.moduli[part])))
            for part in torch.arange(len(self)).split(64)
        ]
        return Familiarity.fit(torch.cat(entries), tuple(self.phases.shape[1:]))


@dataclass(frozen=True)
class DrawnCells:
    """Cells of one kind each with materials for each label of each cell."""

    phases: UInt8[Tensor, "cell *space"]
    materials: list[list[IsotropicElastic]]
    kinds: list[Kind]


def stress_unit(moduli: Float[Tensor, "batch 2 *space"]) -> Float[Tensor, " batch"]:
    """Return the geometric mean of the solid voxels' shear moduli, which lies in their bounds.

    Between Reuss's and Voigt's means of the solid; of a two-phase composite in 2-D at equal
    fractions it is the exact effective conductivity (Dykhne 1971), and the nearest guess of the
    size of stress that needs no solution.
    """
    return solid_means(moduli)[:, 1]


def solid_means(moduli: Float[Tensor, "batch 2 *space"]) -> Float[Tensor, "batch 2"]:
    """Return the geometric means of the solid voxels' bulk and shear moduli."""
    solid = (moduli[:, 1:] > 0).expand_as(moduli)
    logs = torch.where(solid, moduli.clamp_min(torch.finfo(moduli.dtype).tiny).log(), 0.0)
    return (logs.flatten(2).sum(2) / solid.flatten(2).sum(2)).exp()


def described(moduli: Float[Tensor, "batch 2 *space"]) -> Float[Tensor, "batch 2 *space"]:
    """Return moduli with pores as a tenth of the softest solid, as cells are compared by."""
    solid = moduli[:, 1:] > 0
    softest = torch.where(solid, moduli, torch.inf).flatten(2).amin(2)
    wide = PORE_SHARE * softest.view(*softest.shape, *[1] * (moduli.ndim - 2))
    return torch.where(solid, moduli, wide)


def drawn_cells(
    phases: UInt8[Tensor, "cell *space"],
    materials: MaterialRange,
    kinds: CaseShares | Kind,
    *,
    n_phases: int,
    seed: int,
    specimens_cracked: float = 0.5,
) -> DrawnCells:
    """Return cells as cases with materials, each drawn by (seed, cell) alone.

    Every kind at its share, or all of one kind. The materials of a cell are those of its phases,
    a pore, and grips ten times as stiff as the stiffest phase.
    """
    cells, tables, names = [], [], []
    for k, cell in enumerate(phases):
        generator = generator_for(seed, "case", k)
        kind = kinds.drawn(generator) if isinstance(kinds, CaseShares) else kinds
        share = kinds.specimens_cracked if isinstance(kinds, CaseShares) else specimens_cracked
        cells.append(
            cell_of_kind(
                cell, kind, n_phases=n_phases, specimens_cracked=share, generator=generator
            )
        )
        young, nu = materials.relative(torch.rand(1, 3, n_phases, generator=generator))
        tables.append(phase_and_wall_materials(young[0].tolist(), nu[0].tolist()))
        names.append(kind)
    return DrawnCells(torch.stack(cells), tables, names)


def phase_and_wall_materials(young: Sequence[float], nu: Sequence[float]) -> list[IsotropicElastic]:
    """Return the materials of the phases, of a pore and of the grips."""
    pairs = [*zip(young, nu, strict=True), (0.0, 0.3)]
    pairs.append((GRIP_STIFFNESS * max(young), GRIP_POISSON_RATIO))
    return [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=v) for e, v in pairs]


def solved_image_labels(
    phases: UInt8[Tensor, "cell *space"],
    materials: MaterialRange,
    shares: CaseShares,
    folder: Path,
    *,
    n_phases: int,
    tolerance: float,
    seed: int,
    identity: dict[str, Any],
) -> ImageLabels:
    """Return the solver's labels, from `folder` if they were solved before.

    Cells that the solver cannot solve are left out.

    Raises:
        DataError: `folder` holds the labels of other cells or materials, or a stress is not
            finite.
        CheckpointError: `folder` was damaged.
    """

    def solved() -> dict[str, Tensor]:
        drawn = drawn_cells(phases, materials, shares, n_phases=n_phases, seed=seed)
        labels = _labelled(drawn, tolerance)
        return {entry.name: getattr(labels, entry.name) for entry in fields(labels)}

    return ImageLabels(**kept_labels(folder, solved, kind=KIND, identity=identity))


def _labelled(drawn: DrawnCells, tolerance: float) -> ImageLabels:
    stiffness, dim = Stiffness(), drawn.phases.ndim - 1
    moduli = torch.stack([stiffness.phase_moduli(m, dim) for m in drawn.materials])
    unit = stress_unit(local_moduli(drawn.phases, moduli)).view(-1, 1, 1)
    kept, stress = [], []
    for part in torch.arange(len(drawn.phases)).split(CELLS_AT_ONCE):
        for which, found in _solved(drawn, part, tolerance):
            wide = unit[which].view(-1, 1, 1, *[1] * dim)
            kept.append(which)
            stress.append((found / wide).to(torch.float16))
    rows, fields_ = torch.cat(kept), torch.cat(stress)
    strange = rows[~fields_.flatten(1).isfinite().all(1)]
    if len(strange):
        raise DataError(
            f"expected finite stresses of every training cell, got NaN or infinity in cell "
            f"{int(strange[0])}; leave it out of the data"
        )
    return ImageLabels(
        phases=drawn.phases[rows].contiguous(),
        moduli=(moduli / unit)[rows].float().contiguous(),
        kind=torch.tensor([KINDS.index(drawn.kinds[k]) for k in rows.tolist()]),
        stress=fields_.contiguous(),
    )


def _solved(drawn: DrawnCells, part: Tensor, tolerance: float) -> list[tuple[Tensor, Tensor]]:
    """Return (cells, their stresses), together or one by one where that fails."""
    try:
        return [(part, solved_stress(drawn, part, tolerance=tolerance))]
    except ConvergenceError:
        if len(part) == 1:
            return []
        return [found for one in part.split(1) for found in _solved(drawn, one, tolerance)]


def solved_stress(
    drawn: DrawnCells,
    which: Int[Tensor, " batch"],
    *,
    tolerance: float,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch load n *space"]:
    """Return the solver's stress (GPa) of cells under all unit Mandel strains, voxel means.

    Raises:
        ConvergenceError: A cell was not solved.
    """
    labels = len(drawn.materials[0])
    # Each label of each cell is a material of its own to the solver.
    own = labels * torch.arange(len(which)).view(-1, *[1] * (drawn.phases.ndim - 1))
    table = [material for k in which.tolist() for material in drawn.materials[k]]
    phases = drawn.phases[which].long() + own
    return solve_elasticity(phases, table, tolerance=tolerance, dtype=dtype).stress
