"""What a field surrogate learns from: cells, materials drawn for each, the solver's energies."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from microstructures import DataError, MicrostructureDataset
from microstructures.publishing import MANIFEST, open_verified, publish_folder
from microstructures.seeds import derive_seed, generator_for
from physics.mechanics.cells import MAX_ITERATIONS
from physics.mechanics.effective import effective_property
from physics.mechanics.staggered import StaggeredElasticity
from physics.processes.random_field import RandomField
from surrogates.reference import ReferencedCells

KIND = "labels"
SOLVER_RATIO = 2.0  # lame / shear of the solver's one reference: Poisson's ratio 1/3


@dataclass(frozen=True)
class MaterialRange:
    """From which each cell's materials are drawn.

    Young's moduli of phases 1, 2, ... over that of phase 0 are log-uniform in `contrast`, or its
    reciprocal with probability 1/2; Poisson's ratios are uniform.
    """

    contrast: tuple[float, float]
    poisson_ratio: tuple[float, float]


@dataclass(frozen=True)
class LabelledCells:
    """Cells, one draw of Lame and shear moduli for each phase, and the effective stiffness.

    Moduli and stiffness are in units of the cell's reference shear modulus (`ReferencedCells`).
    """

    phases: UInt8[Tensor, "cell *space"]
    lame: Float[Tensor, "cell phase"]
    shear: Float[Tensor, "cell phase"]
    stiffness: Float[Tensor, "cell n n"]

    def cells(self, which: Tensor, phases: UInt8[Tensor, "batch *space"]) -> ReferencedCells:
        """Return labels spread over space with the materials of the cells `which`."""
        lame, shear = self.lame[which], self.shear[which]
        return ReferencedCells.of_moduli(_spread(lame, phases), _spread(shear, phases))[0]


def training_cells(
    dataset: MicrostructureDataset, *, random_fields: int, seed: int
) -> UInt8[Tensor, "cell *space"]:
    """Return the data set's cells that hold two or more phases, then cuts of random fields.

    Raises:
        DataError: The cells are not periodic or hold one phase only, or random fields are asked
            for beside more than two phases.
    """
    if not all(dataset.periodic):
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
    to that solution in the energy norm, so the solved effective stiffness (9 or 36 numbers) is
    all of the solution that training in this norm needs.

    Raises:
        DataError: `folder` holds the labels of other cells or materials.
        CheckpointError: `folder` was damaged.
    """
    identity = json.loads(json.dumps(identity))
    if (folder / MANIFEST).exists():
        if open_verified(folder, kind=KIND) != identity:
            raise DataError(
                f"expected {folder} to hold the labels of these cells and materials, found others; "
                "choose another output folder"
            )
        return LabelledCells(phases=phases, **load_file(folder / "labels.safetensors"))
    lame, shear = draw_moduli(len(phases), n_phases, materials, seed=seed)
    _, unit = ReferencedCells.of_moduli(_spread(lame, phases), _spread(shear, phases))
    lame, shear = lame / unit.unsqueeze(1), shear / unit.unsqueeze(1)
    cells = StaggeredElasticity.of_voxels(
        _spread(lame, phases).double(), _spread(shear, phases).double(), SOLVER_RATIO
    )
    solved = effective_property(
        cells,
        displacement=None,
        tolerance=tolerance,
        max_iterations=MAX_ITERATIONS,
        dtype=torch.float32,
    )
    stiffness = solved.value.float().contiguous()
    tensors = {"lame": lame, "shear": shear, "stiffness": stiffness}
    publish_folder(
        folder,
        lambda partial: save_file(tensors, partial / "labels.safetensors"),
        kind=KIND,
        about=identity,
    )
    return LabelledCells(phases=phases, **tensors)


def draw_moduli(
    n_cells: int, n_phases: int, materials: MaterialRange, *, seed: int
) -> tuple[Float[Tensor, "cell phase"], Float[Tensor, "cell phase"]]:
    """Return Lame and shear moduli per phase, Young's modulus of phase 0 being 1."""
    u = torch.stack(
        [torch.rand(3, n_phases, generator=generator_for(seed, "materials", k))
         for k in range(n_cells)]
    )  # fmt: skip
    low, high = materials.contrast
    ratio = low * (high / low) ** u[:, 0]
    youngs = torch.where(u[:, 1] < 0.5, ratio, 1 / ratio)
    youngs[:, 0] = 1.0
    nu_low, nu_high = materials.poisson_ratio
    nu = nu_low + (nu_high - nu_low) * u[:, 2]
    return youngs * nu / ((1 + nu) * (1 - 2 * nu)), youngs / (2 * (1 + nu))


def _spread(
    values: Float[Tensor, "batch phase"], phases: UInt8[Tensor, "batch *space"]
) -> Float[Tensor, "batch *space"]:
    return values.gather(1, phases.flatten(1).long()).view(phases.shape)


def _mixed(phases: UInt8[Tensor, "cell *space"]) -> UInt8[Tensor, "mixed *space"]:
    """Return the cells that hold more than one phase."""
    flat = phases.flatten(1)
    return phases[flat.amin(1) < flat.amax(1)]
