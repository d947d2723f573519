"""The path net: cells and a load path → strain and stress after every step, by the law."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from microstructures import DataError
from networks.folding import FOLD, fold, unfold
from networks.unet import UNet
from surrogates.plastic_cells import PlasticCells
from surrogates.plastic_return import (
    ReturnedHistory,
    in_plane_basis,
    von_mises_of,
    whole_basis,
    whole_coordinates,
)

LOWEST_HARDENING = 1e-4  # of the mean shear modulus; flatter curves enter the net as this
LEAST_SCALE = 0.1  # of the mean strain: the least size that a voxel's strain is said to have
LATEST_ONSET = 0.95  # of the largest load
SECANT = 1  # maps of the secant answer beside its strain: how much softer it is
TOLD = 5  # maps whose extremes the net is told: moduli, and elastic over yield stress


class PathAnswer(NamedTuple):
    """What a net says of cells, in their own units.

    `coordinates` are those of the strain's in-plane deviator, `deviator` those of the whole
    deviatoric stress (`plastic_return`); trace = `pressure` / bulk modulus.
    """

    coordinates: Float[Tensor, "batch step c *space"]
    deviator: Float[Tensor, "batch step k *space"]
    pressure: Float[Tensor, "batch step *space"]
    plastic: Float[Tensor, "batch step *space"]

    def stress(self) -> Float[Tensor, "batch step m *space"]:
        """Return the whole stress."""
        dim = self.pressure.ndim - 2
        basis = whole_basis(dim).to(self.deviator)
        stress = torch.einsum("km,bsk...->bsm...", basis, self.deviator).contiguous()
        stress[:, :, :3] += self.pressure.unsqueeze(2)
        return stress

    def strain(self, bulk: Float[Tensor, "batch *space"]) -> Float[Tensor, "batch step n *space"]:
        """Return the strain."""
        dim = bulk.ndim - 1
        basis = in_plane_basis(dim).to(self.coordinates)
        strain = torch.einsum("cn,bsc...->bsn...", basis, self.coordinates).contiguous()
        strain[:, :, :dim] += (self.pressure / (dim * bulk.unsqueeze(1))).unsqueeze(2)
        return strain


class Start(NamedTuple):
    """The elastic (first) and secant (second) answers at multiplier 1, and when cells yield.

    `reach` is the yield stress over the equivalent elastic stress, `first` its least value and
    `onset` its harmonic mean; `amplitude` is the root mean square of the elastic deviatoric
    strain, `rough` that of the secant mean stress's fluctuation; `scale` is how large a strain is
    where.
    """

    coordinates: tuple[Float[Tensor, "batch c *space"], Float[Tensor, "batch c *space"]]
    pressure: tuple[Float[Tensor, "batch *space"], Float[Tensor, "batch *space"]]
    reach: Float[Tensor, "batch *space"]
    scale: Float[Tensor, "batch *space"]
    first: Float[Tensor, "batch 1"]
    onset: Float[Tensor, "batch 1"]
    amplitude: Float[Tensor, "batch 1"]
    rough: Float[Tensor, "batch 1"]

    @classmethod
    def of(cls, cells: PlasticCells) -> "Start":
        """Return it from the strains that the cells carry."""
        dim, basis = cells.dim, in_plane_basis(cells.dim).to(cells.elastic)
        strains = (cells.elastic, cells.secant)
        coordinates = [torch.einsum("cn,bn...->bc...", basis, strain) for strain in strains]
        traces = [strain[:, :dim].sum(1) for strain in strains]
        pressures = [cells.moduli[:, 0] * trace for trace in traces]
        q = 2 * cells.moduli[:, 1] * von_mises_of(whole_coordinates(coordinates[0], traces[0]), 1)
        reach = cells.moduli[:, 2] / q
        amplitude = coordinates[0].square().sum(1).flatten(1).mean(1, keepdim=True).sqrt()
        local = coordinates[1].square().sum(1).sqrt()
        return cls(
            (coordinates[0], coordinates[1]),
            (pressures[0], pressures[1]),
            reach,
            local + LEAST_SCALE * _wide(amplitude[:, 0], dim),
            reach.flatten(1).amin(1, keepdim=True),
            (1 / (1 / reach).flatten(1).mean(1, keepdim=True)).clamp_max(LATEST_ONSET),
            amplitude,
            pressures[1].flatten(1).std(1, keepdim=True),
        )

    def shares(
        self, multipliers: Float[Tensor, "batch step"]
    ) -> tuple[Float[Tensor, "batch step"], Float[Tensor, "batch step"]]:
        """Return how much of the elastic and of the secant answer each step is, to begin with.

        Elastic up to the onset of yield, from there straight to the secant answer at multiplier
        1; unloading from the largest load so far is elastic.
        """
        loaded = multipliers.abs().cummax(1).values
        secant = ((loaded - self.onset) / (1 - self.onset)).relu()
        elastic = torch.minimum(loaded, self.onset) - secant * self.onset + multipliers - loaded
        # Nothing yields: the secant sweeps have only gone on with the elastic iterations.
        intact = self.first >= 1
        return torch.where(intact, 0.0, elastic), torch.where(intact, multipliers, secant)


class PathNet(nn.Module):
    """Predict strain deviator and mean stress of all steps at once; the law gives the rest.

    The start is a cheap solver's (`SecantStart`): the elastic strain, and that of Hencky's theory
    at the largest load. A periodic U-Net on a 2x space-to-depth grid sees both, the logarithms of
    each voxel's moduli and that of the elastic equivalent stress over the yield stress; steps are
    channels, and the path enters as a condition. It corrects the start's straight course between
    the two strains. As in mixed finite elements it answers with deviatoric strain and mean stress
    (the trace of the strain follows from the latter, since flow keeps the volume): in plastic flow
    the mean stress is a small difference of large strains. The deviatoric stress follows from the
    history of the deviatoric strain by the radial return, so that every voxel obeys its own yield
    curve, also in unloading.

    Built in: units cancel; what the net adds vanishes until the first voxel yields; where all mean
    strains are prescribed they are met, and else the mean of the free normal stresses is zero.
    Strain is not compatible and stress not in equilibrium but for what training taught.

    Args:
        dim: 2 or 3.
        steps: Of the path.
        widths: Channels of each level of the U-Net.
        blocks: Residual blocks per level.
        features: Length of the condition vector.
    """

    def __init__(
        self, *, dim: int, steps: int, widths: Sequence[int], blocks: int, features: int
    ) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {
            "dim": dim,
            "steps": steps,
            "widths": list(widths),
            "blocks": blocks,
            "features": features,
        }
        self.dim, self.n, self.steps = dim, dim * (dim + 1) // 2, steps
        block = FOLD**dim
        self.told = nn.Sequential(
            nn.Linear(2 * TOLD + steps + 2 * self.n, features),
            nn.SiLU(),
            nn.Linear(features, features),
        )
        self.unet = UNet(
            in_channels=(TOLD + SECANT + 2 * (self.n - 1)) * block,
            out_channels=steps * self.n * block,
            widths=widths,
            blocks=blocks,
            condition=features,
            periodic=(True,) * dim,
        )
        # Untrained, the net adds nothing to its start.
        nn.init.zeros_(cast(Tensor, self.unet.last.convolution.bias))
        self.size_multiple = FOLD * self.unet.size_multiple

    def forward(self, cells: PlasticCells, *, corrected: bool = True) -> PathAnswer:
        """Return strain and stress after every step, the stress by the law from the strain.

        Without correction this is what the start and the law say, without the U-Net.
        """
        start = Start.of(cells)
        size = (len(cells.moduli), self.steps, self.n, *cells.moduli.shape[2:])
        own = self._answer(cells, start) if corrected else cells.moduli.new_zeros(size)
        loaded = cells.multipliers.abs().cummax(1).values
        # The net's own part starts where the first voxel yields.
        beyond = (1 - start.first / loaded.clamp_min(1e-6)).relu()
        strain_unit, stress_unit = beyond * loaded, beyond * (1 + 0.5 * loaded * start.rough)
        shares = start.shares(cells.multipliers)
        law, answers = ReturnedHistory(cells.moduli), []
        bulk, dim = cells.moduli[:, 0], self.dim
        for step, part in enumerate(own.unbind(1)):
            elastic, secant, unit = (_wide(x[:, step], dim) for x in (*shares, stress_unit))
            pressure = elastic * start.pressure[0] + secant * start.pressure[1]
            pressure = torch.addcmul(pressure, unit, part[:, -1])
            pressure = pressure + _wide(_missing_volume(pressure, step, cells), dim)
            elastic, secant, unit = (_wide(x[:, step], dim + 1) for x in (*shares, strain_unit))
            coordinates = elastic * start.coordinates[0] + secant * start.coordinates[1]
            coordinates = coordinates + unit * _fluctuation(part[:, :-1], start.scale, cells)
            stress = law.advance(whole_coordinates(coordinates, pressure / bulk))
            pressure = pressure - _wide(_excess_stress(pressure, stress, cells), dim)
            answers.append(PathAnswer(coordinates, stress, pressure, law.plastic))
        return PathAnswer(*[torch.stack(parts, 1) for parts in zip(*answers, strict=True)])

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells that the net cannot take.

        Raises:
            DataError: The dimension differs, or a side is no multiple of the net's coarsest voxel.
        """
        if len(shape) != self.dim:
            raise DataError(
                f"expected {self.dim}-D cells as the surrogate was trained on, got shape "
                f"{tuple(shape)}; use solve_plasticity"
            )
        if any(side % self.size_multiple for side in shape):
            raise DataError(
                f"expected sides that are multiples of {self.size_multiple}, got {tuple(shape)}; "
                "crop or resample the cell, or use solve_plasticity"
            )

    def _answer(self, cells: PlasticCells, start: Start) -> Float[Tensor, "batch step n *space"]:
        """Return the U-Net's answer: n - 1 coordinates of strain, then mean stress."""
        logs = cells.moduli.clamp_min(LOWEST_HARDENING).log()
        load = start.reach.clamp(1e-3, 1e3).log().neg().unsqueeze(1)
        told = torch.cat([logs, load], 1)
        relative = [part / _wide(start.amplitude, self.dim) for part in start.coordinates]
        size = (start.scale / _wide(start.amplitude[:, 0], self.dim)).log().unsqueeze(1)
        flat = told.flatten(2)
        direction = cells.elastic.flatten(2).mean(2)
        direction = direction / direction.norm(dim=1, keepdim=True)
        condition = [flat.amin(2), flat.amax(2), cells.multipliers, direction, cells.driven.float()]
        layout = torch.channels_last if self.dim == 2 else torch.channels_last_3d
        maps = fold(torch.cat([told, size, *relative], 1)).contiguous(memory_format=layout)
        answer = self.unet(maps, self.told(torch.cat(condition, 1))).float()
        return unfold(answer, self.dim).unflatten(1, (self.steps, self.n))


def _fluctuation(
    part: Float[Tensor, "batch c *space"], scale: Float[Tensor, "batch *space"], cells: PlasticCells
) -> Float[Tensor, "batch c *space"]:
    """Return a strain in shares of its size there, without mean where all is driven.

    What is taken off is shared out by that size: a phase that flows takes more of it.
    """
    strain = part * scale.unsqueeze(1)
    mean = strain.flatten(2).mean(2) / scale.flatten(1).mean(1, keepdim=True)
    mean = _wide(mean * cells.driven.all(1, keepdim=True), cells.dim)
    return torch.addcmul(strain, scale.unsqueeze(1), mean, value=-1)


def _missing_volume(
    pressure: Float[Tensor, "batch *space"], step: int, cells: PlasticCells
) -> Float[Tensor, " batch"]:
    """Return the shift of mean stress that gives the prescribed mean trace, 0 if not all driven."""
    driven = cells.driven[:, : cells.dim].all(1)
    wanted = cells.multipliers[:, step] * cells.target[:, : cells.dim].sum(1)
    compliance = 1 / cells.moduli[:, 0]
    trace = (pressure * compliance).flatten(1).mean(1)
    return torch.where(driven, (wanted - trace) / compliance.flatten(1).mean(1), 0.0)


def _excess_stress(
    pressure: Float[Tensor, "batch *space"],
    deviator: Float[Tensor, "batch k *space"],
    cells: PlasticCells,
) -> Float[Tensor, " batch"]:
    """Return the mean of the mean normal stresses that are prescribed as zero."""
    dim = cells.dim
    free = (~cells.driven[:, :dim]).float()
    basis = whole_basis(dim)[:, :dim].to(deviator)
    normal = deviator.flatten(2).mean(2) @ basis + pressure.flatten(1).mean(1, keepdim=True)
    return (free * normal).sum(1) / free.sum(1).clamp_min(1)


def _wide(values: Tensor, axes: int) -> Tensor:
    return values.view(*values.shape, *[1] * axes)
