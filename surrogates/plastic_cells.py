"""Elastic-plastic cells on a proportional path, without units: what a path surrogate sees."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics.hardening import ElasticPlastic, LinearHardening
from physics.mechanics.loading_path import LoadingPath

PROPORTIONAL = 1e-6
"""Share of a path's largest target by which its others may miss its direction."""


@dataclass(frozen=True)
class PlasticUnits:
    """Stress unit: a cell's mean initial yield stress; modulus unit: its mean shear modulus.

    The strain unit is their ratio, so that Hooke's law and the yield curve keep their form.
    """

    stress: Float[Tensor, " batch"]
    modulus: Float[Tensor, " batch"]

    @property
    def strain(self) -> Float[Tensor, " batch"]:
        """The unit of strain."""
        return self.stress / self.modulus


@dataclass(frozen=True)
class PlasticCells:
    """Cells, their path, and what a cheap start says of them, in units of their own.

    `moduli` are bulk and shear modulus, initial yield stress and plastic modulus of each voxel.
    The path is `target` (mean strains where `driven`, mean stresses, which are zero, elsewhere)
    times the `multipliers`, whose largest size is 1. `elastic` is the strain that the cells would
    have at multiplier 1 if they did not yield, `secant` what Hencky's theory gives there, both
    after a few iterations only (`SecantStart`).
    """

    moduli: Float[Tensor, "batch 4 *space"]
    elastic: Float[Tensor, "batch n *space"]
    secant: Float[Tensor, "batch n *space"]
    target: Float[Tensor, "batch n"]
    driven: Bool[Tensor, "batch n"]
    multipliers: Float[Tensor, "batch step"]

    @property
    def dim(self) -> int:
        """Axes of space."""
        return self.moduli.ndim - 2

    def select(self, samples: Tensor | slice) -> "PlasticCells":
        """Return some of the cells."""
        return type(self)(*[getattr(self, entry.name)[samples] for entry in fields(self)])


def phase_table(
    materials: Sequence[ElasticPlastic],
) -> Float[Tensor, "4 phase"]:
    """Return bulk, shear, yield stress and plastic modulus of each phase in GPa.

    Raises:
        DataError: A phase is a pore, never yields, or hardens by another law than a straight line.
    """
    rows = []
    for place, material in enumerate(materials):
        curve = getattr(material, "hardening", None)
        if not isinstance(material, ElasticPlastic) or not isinstance(curve, LinearHardening):
            raise DataError(
                f"materials: expected an ElasticPlastic phase with LinearHardening, got {material} "
                f"for phase {place}; the surrogate was trained on those, use solve_plasticity"
            )
        elastic = material.elastic
        rows.append([elastic.bulk, elastic.shear, curve.yield_stress_gpa, curve.modulus_gpa])
    return torch.tensor(rows, dtype=torch.float64).T


def voxel_moduli(
    phases: Integer[Tensor, "batch *space"], table: Float[Tensor, "batch 4 phase"]
) -> Float[Tensor, "batch 4 *space"]:
    """Return what each label stands for in its own cell's table."""
    flat = phases.flatten(1).long().unsqueeze(1).expand(-1, 4, -1)
    return table.gather(2, flat).unflatten(2, phases.shape[1:])


def scaled_moduli(
    moduli: Float[Tensor, "batch 4 *space"],
) -> tuple[Float[Tensor, "batch 4 *space"], PlasticUnits]:
    """Return moduli in units of their own cell, and the units in those of the moduli."""
    means = moduli.flatten(2).mean(2)
    units = PlasticUnits(means[:, 2], means[:, 1])
    unit = torch.stack([units.modulus, units.modulus, units.stress, units.modulus], 1)
    return moduli / unit.view(*unit.shape, *[1] * (moduli.ndim - 2)), units


def proportional_parts(
    path: LoadingPath, batch: int
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch step"]]:
    """Return the targets at the largest load of a path, and the multiplier of every step.

    Raises:
        DataError: The path turns, changes what it drives, prescribes a stress other than zero,
            drives nothing, never leaves zero, or is reversed before its largest load.
    """
    driven, targets = path.strain_driven, path.of_samples(batch)
    if not bool((driven == driven[0]).all()):
        raise DataError("path: expected the same components driven in all steps; split the path")
    if not bool(driven[0].any()) or bool((targets * ~driven).any()):
        raise DataError(
            "path: expected mean strains, and zero for mean stresses, as the surrogate was trained "
            "on; use solve_plasticity for other tests"
        )
    square = targets.square().sum(2)
    last = square.argmax(1)
    rows = torch.arange(batch)
    target, size = targets[rows, last], square[rows, last]
    if not bool((size > 0).all()):
        raise DataError("path: expected a strain other than zero, got a test without load")
    multipliers = torch.einsum("bsn,bn->bs", targets, target) / size[:, None]
    before = torch.arange(path.steps) < last[:, None]
    if bool((before & (multipliers < 0)).any()):
        raise DataError(
            "path: expected no reversal before the largest load, as the surrogate was trained on; "
            "use solve_plasticity"
        )
    miss = targets - multipliers[:, :, None] * target[:, None]
    worst = float((miss.square().sum(2).amax(1) / size).max()) ** 0.5
    if worst > PROPORTIONAL:
        raise DataError(
            f"path: expected all targets along one direction, got a path that leaves it by "
            f"{worst:.2g} of its largest target; use solve_plasticity for paths that turn"
        )
    return target, multipliers


def check_labels(phases: Shaped[Tensor, "batch *space"], n_phases: int) -> None:
    """Refuse fractions and unknown labels.

    Raises:
        DataError: `phases` are no labels of these phases.
    """
    low, high = phases.min(), phases.max()
    if phases.is_floating_point() or int(low) < 0 or int(high) >= n_phases:
        raise DataError(
            f"phases: expected integer labels 0..{n_phases - 1}, one material each, got "
            f"{phases.dtype} from {low} to {high}; a yield curve cannot be mixed"
        )
