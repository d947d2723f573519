"""Crystal orientations of grains as unit quaternions (w, x, y, z), crystal to sample axes."""

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError


def uniform_orientations(n: int, *, generator: torch.Generator) -> Float[Tensor, "n 4"]:
    """Return n orientations spread evenly over all rotations (Haar measure), w >= 0."""
    return _canonical(torch.randn(n, 4, generator=generator, dtype=torch.float64))


def fibre_orientations(
    n: int,
    *,
    direction: tuple[float, float, float],
    spread_deg: float,
    generator: torch.Generator,
) -> Float[Tensor, "n 4"]:
    """Return n orientations whose crystal [001] lies about a sample direction.

    The tilt of [001] has two independent normal components of standard deviation `spread_deg`
    degrees; the spin about it is uniform.

    Raises:
        DataError: The direction is zero, or the spread is negative or not finite.
    """
    fibre = torch.tensor(direction, dtype=torch.float64)
    if not (torch.isfinite(fibre).all() and fibre.norm() > 0 and 0 <= spread_deg < float("inf")):
        raise DataError(
            f"expected a fibre direction that is not zero and a spread_deg >= 0, got {direction} "
            f"and {spread_deg}"
        )
    spin = torch.rand(n, generator=generator, dtype=torch.float64) * (2 * torch.pi)
    tilt = torch.randn(n, 2, generator=generator, dtype=torch.float64) * spread_deg
    tilt = torch.nn.functional.pad(torch.deg2rad(tilt), (0, 1))
    about_c = torch.stack([torch.zeros_like(spin), torch.zeros_like(spin), spin], dim=1)
    turned = _product(_from_rotation_vector(tilt), _from_rotation_vector(about_c))
    return _canonical(_product(_turning_c_to(fibre / fibre.norm()).expand(n, 4), turned))


def _turning_c_to(direction: Tensor) -> Tensor:
    """Return the shortest rotation that takes (0, 0, 1) to a unit vector."""
    x, y, z = direction
    if z < -1 + 1e-12:
        return torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    half = torch.stack([1 + z, -y, x, torch.zeros_like(x)])
    return half / half.norm()


def _from_rotation_vector(vector: Tensor) -> Tensor:
    angle = vector.norm(dim=1, keepdim=True)
    return torch.cat([torch.cos(angle / 2), vector * torch.sinc(angle / (2 * torch.pi)) / 2], dim=1)


def _product(p: Tensor, q: Tensor) -> Tensor:
    """Return the rotation q followed by p (Hamilton's product)."""
    scalar = p[:, :1] * q[:, :1] - (p[:, 1:] * q[:, 1:]).sum(1, keepdim=True)
    vector = p[:, :1] * q[:, 1:] + q[:, :1] * p[:, 1:] + torch.linalg.cross(p[:, 1:], q[:, 1:])
    return torch.cat([scalar, vector], dim=1)


def _canonical(q: Tensor) -> Tensor:
    q = q / q.norm(dim=1, keepdim=True)
    return torch.where(q[:, :1] < 0, -q, q)
