"""Stress fields against the solver's: error maps, von Mises stress, concentrations, sharpness."""

import torch
from jaxtyping import Float
from torch import Tensor

from physics.mechanics.radial_return import von_mises

LEAST_SHARE = 0.1  # of a field's mean von Mises stress: voxels below it count as that
CONCENTRATION = 0.99  # quantile over the solid voxels


def error_map(
    prediction: Float[Tensor, "batch load n *space"], truth: Float[Tensor, "batch load n *space"]
) -> Float[Tensor, "batch load *space"]:
    """Return |s - s*| at every voxel over the root mean square of |s*| in the cell.

    |.| is the norm of the tensor at a voxel (Mandel). The root mean square of the map is
    `relative_error`.
    """
    size = truth.square().sum(2).flatten(2).mean(2).sqrt()
    gap = (prediction - truth).square().sum(2).sqrt()
    return gap / size.view(*size.shape, *[1] * (truth.ndim - 3))


def relative_error(
    prediction: Float[Tensor, "batch load n *space"], truth: Float[Tensor, "batch load n *space"]
) -> Float[Tensor, "batch load"]:
    """Return the relative L2 error of each stress field."""
    return (prediction - truth).flatten(2).norm(dim=2) / truth.flatten(2).norm(dim=2)


def von_mises_stress(
    stress: Float[Tensor, "batch load n *space"], poisson: Float[Tensor, "batch *space"]
) -> Float[Tensor, "batch load *space"]:
    """Return the equivalent stress; in 2-D of plane strain, where s33 = nu (s11 + s22)."""
    if stress.shape[2] == 6:
        return von_mises(stress)
    normal = poisson.unsqueeze(1) * stress[:, :, :2].sum(2)
    return von_mises(torch.cat([stress[:, :, :2], normal.unsqueeze(2), stress[:, :, 2:]], 2))


def equivalent_error(
    found: Float[Tensor, "batch load *space"],
    exact: Float[Tensor, "batch load *space"],
    solid: Float[Tensor, "batch *space"],
) -> Float[Tensor, "batch load"]:
    """Return the mean over solids of |q - q*| / q* (MAPE), q* at least a tenth of its mean."""
    weight = (solid / solid.flatten(1).sum(1).view(-1, *[1] * (solid.ndim - 1))).unsqueeze(1)
    level = (weight * exact).flatten(2).sum(2).view(*exact.shape[:2], *[1] * (exact.ndim - 2))
    relative = (found - exact).abs() / torch.maximum(exact, LEAST_SHARE * level)
    return (weight * relative).flatten(2).sum(2)


def concentration(
    equivalent: Float[Tensor, "batch load *space"], solid: Float[Tensor, "batch *space"]
) -> Float[Tensor, "batch load"]:
    """Return the 99th percentile of von Mises stress over the solid voxels."""
    hidden = torch.where(solid.unsqueeze(1) > 0, equivalent, torch.nan).flatten(2)
    return hidden.nanquantile(CONCENTRATION, dim=2)


def roughness(
    equivalent: Float[Tensor, "batch load *space"],
) -> Float[Tensor, "batch load"]:
    """Return the mean size of the gradient of von Mises stress (periodic forward differences).

    That of a prediction over the solver's is its sharpness: below 1 it is blurred.
    """
    axes = range(2, equivalent.ndim)
    steps = [equivalent.roll(-1, axis) - equivalent for axis in axes]
    return torch.stack(steps).square().sum(0).sqrt().flatten(2).mean(2)


def fine_power(equivalent: Float[Tensor, "batch load *space"]) -> Float[Tensor, "batch load"]:
    """Return the power of von Mises stress at wavelengths below 8 voxels.

    That of a prediction over the solver's is 1 if it is as fine, right or wrong.
    """
    shape = equivalent.shape[2:]
    axes = tuple(range(2, equivalent.ndim))
    power = torch.fft.fftn(equivalent, dim=axes, norm="forward").abs().square()
    grids = torch.meshgrid(*[torch.fft.fftfreq(n) for n in shape], indexing="ij")
    fine = torch.stack(grids).square().sum(0).sqrt() > 1 / 8
    return (power * fine).flatten(2).sum(2)
