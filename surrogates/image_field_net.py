"""A periodic U-Net from the image of a cell straight to its stress, under every unit load."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from microstructures import DataError
from networks.folding import FOLD, fold, unfold
from physics.mechanics.grid import SHEAR_PAIRS
from surrogates.convolutional_operator import ConvolutionalOperator
from surrogates.image_labels import solid_means

PIXELS = 3  # channels that look at a voxel alone: two logarithms of moduli, and what is solid


class StressNet(nn.Module):
    """Predict the stress of all unit Mandel strains from the moduli of each voxel, no solver step.

    A U-Net on a 2x space-to-depth grid sees the logarithms of bulk and shear modulus over the
    geometric means of the solid's, what is solid, and the means of that and of the shear modulus'
    logarithm over the cross-sections through the voxel: a section carries the whole load, and one
    of pore carries none, however far away. The extremes of all these, so the contrast and whether
    there are pores or free sides, modulate every block. It answers with a matrix M(x) per voxel:

        stress(x) = solid(x) (C_g + h M(x)) : E,   h = (c - 1) / (c + 1),

    C_g the isotropic stiffness of the geometric means and c the contrast, infinite with pores.
    Where a whole cross-section is pore, so that the cell has free sides along that axis, no load
    across it does anything: C_g is that without traction there, and M sees the other loads alone.
    So the answer is linear in the load, a pore carries nothing, a homogeneous cell and loads
    across free sides are exact whatever the weights, units cancel, and periodic shifts by
    `size_multiple` voxels commute with the net.

    Args:
        dim: 2 or 3.
        widths: Channels per level; each level halves the grid.
        blocks: Residual blocks per level.
        features: Length of the condition vector.
    """

    def __init__(self, *, dim: int, widths: Sequence[int], blocks: int, features: int) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {
            "dim": dim,
            "widths": list(widths),
            "blocks": blocks,
            "features": features,
        }
        self.dim, self.n = dim, dim * (dim + 1) // 2
        block = FOLD**dim
        self.operator = ConvolutionalOperator(
            in_channels=(PIXELS + 2 * dim) * block,
            out_channels=self.n**2 * block,
            widths=widths,
            blocks=blocks,
            features=features,
            dim=dim,
        )
        self.size_multiple = FOLD * self.operator.size_multiple

    def forward(
        self, moduli: Float[Tensor, "batch 2 *space"]
    ) -> Float[Tensor, "batch load n *space"]:
        """Return the stress in the unit of the moduli (bulk, in 2-D of plane strain; shear).

        Raises:
            DataError: The dimension differs, or a side is not a multiple of `size_multiple`.
        """
        self.check_shape(moduli.shape[2:])
        image, means = seen(moduli)
        answer = unfold(self.operator(fold(image)), self.dim).unflatten(1, (self.n, self.n))
        wide = [1] * self.dim
        shear = means[:, 1]
        bulk_ratio = means[:, 0] / shear
        solid = image[:, PIXELS - 1].unsqueeze(1).unsqueeze(1)
        idle = idle_loads(solid[:, 0, 0])
        active = (~idle).view(-1, self.n, 1, *wide)
        deviation = strangeness(moduli).view(-1, 1, 1, *wide) * active * answer
        uniform = without_traction(isotropic_matrix(bulk_ratio, self.dim), idle)
        field = solid * (uniform.view(*uniform.shape, *wide) + deviation)
        return shear.view(-1, 1, 1, *wide) * field

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells that the net cannot take.

        Raises:
            DataError: The dimension differs, or a side is not a multiple of `size_multiple`.
        """
        if len(shape) != self.dim:
            raise DataError(
                f"expected {self.dim}-D cells as the surrogate was trained on, got shape "
                f"{tuple(shape)}; use the solver"
            )
        if any(side % self.size_multiple for side in shape):
            raise DataError(
                f"expected sides that are multiples of {self.size_multiple}, got {tuple(shape)}; "
                "widen the walls, crop or resample the cell, or use the solver"
            )


def seen(
    moduli: Float[Tensor, "batch 2 *space"],
) -> tuple[Float[Tensor, "batch channel *space"], Float[Tensor, "batch 2"]]:
    """Return the image that nets see, and the geometric means of the solid's moduli.

    Logarithms of the moduli over their means (0 in pores), 1 where there is solid (`PIXELS`), and
    the means of the last two over the cross-section normal to each axis.
    """
    means = solid_means(moduli)
    solid = moduli[:, 1:] > 0
    relative = moduli / means.view(*means.shape, *[1] * (moduli.ndim - 2))
    logs = torch.where(solid, relative, 1.0).log()
    image = torch.cat([logs, solid.to(logs)], 1)
    axes = range(2, moduli.ndim)
    sections = [
        image[:, 1:].mean([a for a in axes if a != axis], keepdim=True).expand_as(image[:, 1:])
        for axis in axes
    ]
    return torch.cat([image, *sections], 1), means


def strangeness(moduli: Float[Tensor, "batch 2 *space"]) -> Float[Tensor, " batch"]:
    """Return (c - 1) / (c + 1) of the larger contrast: 0 of a homogeneous cell, 1 with pores.

    The factor by which Lippmann-Schwinger steps contract (Moulinec, Suquet 1998).
    """
    flat = moduli.flatten(2)
    low, high = flat.amin(2), flat.amax(2)
    return ((high - low) / (high + low)).amax(1)


def idle_loads(solid: Float[Tensor, "batch *space"]) -> Bool[Tensor, "batch n"]:
    """Return which Mandel components of a macroscopic strain do nothing: those across free sides.

    If a cross-section normal to axis i is all pore, the displacement takes up sym(g x e_i) for any
    g: one side moves against the other.
    """
    dim = solid.ndim - 1
    axes = range(1, solid.ndim)
    free = torch.stack(
        [(solid.sum([a for a in axes if a != axis]) == 0).any(1) for axis in axes], 1
    )
    pairs = [(i, i) for i in range(dim)] + list(SHEAR_PAIRS[dim])
    return torch.stack([free[:, i] | free[:, j] for i, j in pairs], 1)


def without_traction(
    matrix: Float[Tensor, "batch n n"], idle: Bool[Tensor, "batch n"]
) -> Float[Tensor, "batch n n"]:
    """Return the stiffness for the other strains while the stresses `idle` are zero.

    C - C_ab C_bb^-1 C_ba: for a bar of one phase under tension the truth.
    """
    chosen = torch.diag_embed(idle.to(matrix))
    rest = torch.eye(matrix.shape[1]).to(matrix) - chosen
    inner = chosen @ matrix @ chosen + rest
    coupled = chosen @ matrix
    return matrix - coupled.mT @ torch.linalg.solve(inner, coupled)


def isotropic_matrix(bulk: Float[Tensor, " batch"], dim: int) -> Float[Tensor, "batch n n"]:
    """Return the Mandel stiffness of shear modulus 1 and a bulk modulus (2-D: plane strain)."""
    n = dim + len(SHEAR_PAIRS[dim])
    matrix = 2 * torch.eye(n, dtype=bulk.dtype, device=bulk.device).repeat(len(bulk), 1, 1)
    matrix[:, :dim, :dim] += (bulk - 2 / dim).view(-1, 1, 1)
    return matrix
