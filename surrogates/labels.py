"""What a surrogate learns from: cells, materials drawn for each, the solver's answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from microstructures import DataError, MicrostructureDataset
from microstructures.seeds import derive_seed, generator_for
from physics.mechanics.cells import MAX_ITERATIONS
from physics.mechanics.effective import effective_property
from physics.processes.random_field import RandomField
from surrogates.familiarity import Familiarity, describe
from surrogates.kept_labels import kept_labels
from surrogates.quantities import MaterialRange, Quantity, local_moduli, scaled
from surrogates.reference import ReferencedCells
from surrogates.solver_steps import SolverSteps

KIND = "labels"
CELLS_AT_ONCE = 64


@dataclass(frozen=True)
class LabelledCells:
    """Cells, one draw of moduli for each phase, and the effective matrix.

    Moduli and matrix are in units of the middle of the cell's last modulus (`scaled`), so that
    the reference shear modulus or conductivity is 1.
    """

    phases: UInt8[Tensor, "cell *space"]
    moduli: Float[Tensor, "cell modulus phase"]
    effective: Float[Tensor, "cell n n"]
    quantity: Quantity

    def __post_init__(self) -> None:
        whole = self.moduli.flatten(1).isfinite().all(1) & self.effective.flatten(1).isfinite().all(
            1
        )
        if not whole.all():
            cells = torch.nonzero(~whole).flatten().tolist()
            raise DataError(
                "expected finite moduli and effective matrices of every training cell, got NaN or "
                f"infinity for cell {cells[0]} and {len(cells) - 1} more; leave them out, or "
                "narrow the range of materials"
            )

    def __len__(self) -> int:
        return len(self.phases)

    def rows(self, which: Tensor) -> "LabelledCells":
        """Return some of the cells."""
        return LabelledCells(
            self.phases[which], self.moduli[which], self.effective[which], self.quantity
        )

    @classmethod
    def joined(cls, parts: "Sequence[LabelledCells]") -> "LabelledCells":
        """Return the cells of all parts, which have one shape and quantity."""
        return cls(
            phases=torch.cat([part.phases for part in parts]),
            moduli=torch.cat([part.moduli for part in parts]),
            effective=torch.cat([part.effective for part in parts]),
            quantity=parts[0].quantity,
        )

    def fields(
        self, which: Tensor, phases: UInt8[Tensor, "batch *space"]
    ) -> Float[Tensor, "batch modulus *space"]:
        """Return the local moduli of labels with the materials of the cells `which`."""
        return scaled(local_moduli(phases, self.moduli[which]))[0]

    def cells(self, which: Tensor, phases: UInt8[Tensor, "batch *space"]) -> ReferencedCells:
        """Return elastic cells of labels with the materials of the cells `which`."""
        bulk, shear = self.fields(which, phases).unbind(1)
        lame = bulk - 2 / (phases.ndim - 1) * shear
        return ReferencedCells.of_moduli(lame, shear)[0]

    def familiarity(self) -> Familiarity:
        """Return the distance from these cells with their materials."""
        rows = torch.arange(len(self)).split(64)
        entries = [describe(self.fields(part, self.phases[part])) for part in rows]
        return Familiarity.fit(torch.cat(entries), tuple(self.phases.shape[1:]))


def training_cells(
    dataset: MicrostructureDataset, *, random_fields: int, seed: int, as_periods: bool = False
) -> UInt8[Tensor, "cell *space"]:
    """Return the data set's cells that hold two or more phases, then cuts of random fields.

    With `as_periods`, cells that are not periodic are taken as one period, seams and all.

    Raises:
        DataError: The cells are not periodic or hold one phase only, or random fields are asked
            for beside more than two phases.
    """
    if not (as_periods or all(dataset.periodic)):
        raise DataError(
            f"expected periodic cells to train a field surrogate, got periodic = "
            f"{dataset.periodic}; simulate periodic cells, or crop and tile"
        )
    mixed = _mixed(dataset.phases)
    if not len(mixed):
        raise DataError("expected cells of two or more phases, got single-phase cells only")
    if not random_fields:
        return mixed
    if dataset.n_phases != 2:
        raise DataError(
            f"expected random_fields = 0 with {dataset.n_phases} phases, got {random_fields}: a "
            "random field is cut into two phases"
        )
    process = RandomField()
    draws = torch.rand(
        random_fields, len(process.space), generator=generator_for(seed, "random fields")
    )
    points = [process.space.from_unit(u) for u in draws.tolist()]
    cuts = process.simulate(
        points, shape=dataset.phases.shape[1:], seed=derive_seed(seed, "random fields")
    )
    cells = torch.stack([torch.from_numpy(cell.phases) for cell in cuts])
    return torch.cat([mixed, _mixed(cells)])


def solved_labels(
    phases: UInt8[Tensor, "cell *space"],
    quantity: Quantity,
    materials: MaterialRange,
    folder: Path,
    *,
    n_phases: int,
    tolerance: float,
    seed: int,
    identity: dict[str, Any],
) -> LabelledCells:
    """Return the solver's labels, from `folder` if they were solved before.

    The energy that a trial displacement has above the solver's solution is its squared distance
    to that solution in the energy norm, so the solved effective matrix (9 or 36 numbers) is all
    of the solution that training in this norm needs.

    Raises:
        DataError: `folder` holds the labels of other cells or materials.
        CheckpointError: `folder` was damaged.
    """

    def solved() -> dict[str, Tensor]:
        labels = solve_cells(
            phases, quantity, materials, n_phases=n_phases, tolerance=tolerance, seed=seed
        )
        return {"moduli": labels.moduli, "effective": labels.effective}

    identity = {**identity, "quantity": quantity.name}
    tensors = kept_labels(folder, solved, kind=KIND, identity=identity)
    return LabelledCells(phases=phases, quantity=quantity, **tensors)


def solve_cells(
    phases: UInt8[Tensor, "cell *space"],
    quantity: Quantity,
    materials: MaterialRange,
    *,
    n_phases: int,
    tolerance: float,
    seed: int,
) -> LabelledCells:
    """Return cells with materials drawn for each and the solver's effective matrix."""
    moduli = _drawn_moduli(phases, quantity, materials, n_phases=n_phases, seed=seed)
    solved = effective_property(
        quantity.problem(local_moduli(phases, moduli.double())),
        displacement=None,
        tolerance=tolerance,
        max_iterations=MAX_ITERATIONS,
        dtype=torch.float32,
        lower=False,
    )
    return LabelledCells(phases, moduli, solved.value.float().contiguous(), quantity)


def unsolved_labels(
    phases: UInt8[Tensor, "cell *space"],
    quantity: Quantity,
    materials: MaterialRange,
    *,
    n_phases: int,
    seed: int,
) -> LabelledCells:
    """Return cells whose matrix is only the bound that the solver's first step gives."""
    moduli = _drawn_moduli(phases, quantity, materials, n_phases=n_phases, seed=seed)
    bounds = [
        SolverSteps.of(quantity.problem(local_moduli(p, m))).interval.upper
        for p, m in zip(phases.split(CELLS_AT_ONCE), moduli.split(CELLS_AT_ONCE), strict=True)
    ]
    return LabelledCells(phases, moduli, torch.cat(bounds).float(), quantity)


def coarsened(phases: UInt8[Tensor, "cell *space"], factor: int) -> UInt8[Tensor, "cell *coarse"]:
    """Return cells at a lower resolution: the label that most voxels of each block have.

    Raises:
        DataError: A side is no multiple of the factor.
    """
    shape = phases.shape[1:]
    if any(side % factor for side in shape):
        raise DataError(
            f"expected sides that are multiples of {factor} to coarsen, got {tuple(shape)}"
        )
    pool = (F.avg_pool2d, F.avg_pool3d)[len(shape) - 2]
    indicators = F.one_hot(phases.long()).movedim(-1, 1).float()
    # Ties go to the label of the block's first voxel, so that no phase gains by its number.
    first = indicators[(slice(None), slice(None), *[slice(None, None, factor)] * len(shape))]
    return (pool(indicators, factor) + 1e-3 * first).argmax(1).to(torch.uint8)


def material_draws(n_cells: int, n_phases: int, *, seed: int) -> Float[Tensor, "cell 3 phase"]:
    """Return uniform numbers, those of a cell depending on (seed, cell) alone."""
    return torch.stack(
        [torch.rand(3, n_phases, generator=generator_for(seed, "materials", k))
         for k in range(n_cells)]
    )  # fmt: skip


def _drawn_moduli(
    phases: Tensor, quantity: Quantity, materials: MaterialRange, *, n_phases: int, seed: int
) -> Float[Tensor, "cell modulus phase"]:
    """Return the moduli of materials drawn for each cell, in the unit of its reference."""
    draws = material_draws(len(phases), n_phases, seed=seed)
    moduli = quantity.drawn(draws, materials, phases.ndim - 1)
    _, unit = scaled(local_moduli(phases, moduli.double()))
    return (moduli / unit.view(-1, 1, 1)).float().contiguous()


def _mixed(phases: UInt8[Tensor, "cell *space"]) -> UInt8[Tensor, "mixed *space"]:
    """Return the cells that hold more than one phase."""
    flat = phases.flatten(1)
    return phases[flat.amin(1) < flat.amax(1)]
