"""Stress from a history of strain, by the law: J2 flow with straight hardening curves.

Deviators are given by their coordinates in an orthonormal basis, k = 3 of them in plane strain and
5 in 3-D, so that their Euclidean norm is that of the tensor.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-12


@lru_cache(maxsize=2)
def in_plane_basis(dim: int) -> Float[Tensor, "c n"]:
    """Return the c = n - 1 orthonormal strains without trace, by their n Mandel components."""
    if dim == 2:
        rows = [[0.5**0.5, -(0.5**0.5), 0.0], [0.0, 0.0, 1.0]]
        return torch.tensor(rows)
    basis = torch.zeros(5, 6)
    basis[0, :3] = torch.tensor([1.0, -1.0, 0.0]) / 2**0.5
    basis[1, :3] = torch.tensor([1.0, 1.0, -2.0]) / 6**0.5
    basis[2:, 3:] = torch.eye(3)
    return basis


@lru_cache(maxsize=2)
def whole_basis(dim: int) -> Float[Tensor, "k m"]:
    """Return the orthonormal deviators by their m whole components, `in_plane_basis` first."""
    flat = in_plane_basis(dim)
    if dim == 3:
        return flat
    basis = torch.zeros(3, 4)
    basis[:2, [0, 1, 3]] = flat
    basis[2, :3] = torch.tensor([1.0, 1.0, -2.0]) / 6**0.5
    return basis


def whole_coordinates(
    coordinates: Float[Tensor, "batch c *space"], trace: Float[Tensor, "batch *space"]
) -> Float[Tensor, "batch k *space"]:
    """Return all coordinates of a deviator: in plane strain the trace has a share in one."""
    if coordinates.shape[1] == 5:
        return coordinates
    return torch.cat([coordinates, (trace / 6**0.5).unsqueeze(1)], 1)


def von_mises_of(coordinates: Float[Tensor, "*lead k space"], axis: int) -> Tensor:
    """Return sqrt(3/2) |s| of a deviatoric stress, its coordinates along `axis`."""
    return (1.5 * coordinates.square().sum(axis)).clamp_min(SMALLEST).sqrt()


class ReturnedHistory:
    """Cells under a history of strain, each voxel with a yield stress and slope of its own.

    The implicit radial return (Wilkins 1964) with sigma_y = sigma_0 + H p in closed form:
    dp = (q - sigma_y(p)) / (3 G + H) where the trial stress q is beyond, else 0. Differentiable.
    `physics.mechanics.radial_return.PlasticLaw`, which this equals, has one curve per phase.
    """

    def __init__(self, moduli: Float[Tensor, "batch 4 *space"]) -> None:
        _, shear, self.first, self.hardening = moduli.unbind(1)
        self.twice = (2 * shear).unsqueeze(1)
        self.half_compliance = 1 / self.twice
        self.stiffness = 3 * shear
        self.compliance = 1 / (self.stiffness + self.hardening)
        self.flow: Tensor | None = None
        self.plastic = torch.zeros_like(shear)

    def advance(self, strain: Float[Tensor, "batch k *space"]) -> Float[Tensor, "batch k *space"]:
        """Return the deviatoric stress at the next deviatoric strain, by coordinates."""
        trial = self.twice * (strain if self.flow is None else strain - self.flow)
        q = von_mises_of(trial, 1)
        excess = q - torch.addcmul(self.first, self.hardening, self.plastic)
        dp = excess.relu() * self.compliance
        stress = (1 - self.stiffness * dp / q).unsqueeze(1) * trial
        self.flow = torch.addcmul(strain, stress, self.half_compliance, value=-1)
        self.plastic = self.plastic + dp
        return stress


def returned(
    strain: Float[Tensor, "batch step n *space"], moduli: Float[Tensor, "batch 4 *space"]
) -> tuple[Float[Tensor, "batch step k *space"], Float[Tensor, "batch step *space"]]:
    """Return deviatoric stress by coordinates, and mean stress, along a history of strain."""
    dim = moduli.ndim - 2
    law, basis, trace = ReturnedHistory(moduli), in_plane_basis(dim), strain[:, :, :dim].sum(2)
    coordinates = torch.einsum("cn,bsn...->bsc...", basis.to(strain), strain)
    stress = [
        law.advance(whole_coordinates(c, t))
        for c, t in zip(coordinates.unbind(1), trace.unbind(1), strict=True)
    ]
    return torch.stack(stress, 1), moduli[:, :1] * trace
