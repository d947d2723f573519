"""Cells with cracks and walls: thin pores, strips of pore along free sides, stiff grips."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from microstructures import DataError

Kind = Literal["periodic", "cracked", "free sides", "gripped"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_CRACKS = 3
CRACK_LENGTHS = (0.1, 0.45)  # of the shortest side, tip to tip
THICKNESSES = (1, 2)  # voxels
KINKS = (math.radians(20), math.radians(70))
FREE_WIDTHS = (0.1, 0.3)  # of the side that a strip of pore takes
GRIP_WIDTHS = (0.06, 0.14)


@dataclass(frozen=True)
class CaseShares:
    """Which share of cells is what; the rest is periodic.

    Args:
        cracked: With cracks, otherwise periodic.
        free: Bars: one axis ends at free sides.
        gripped: Specimens between grips, their other sides free.
        specimens_cracked: Share of the latter two that carry cracks too.
    """

    cracked: float
    free: float
    gripped: float
    specimens_cracked: float = 0.5

    def drawn(self, generator: torch.Generator) -> Kind:
        """Return a kind at random."""
        u = float(torch.rand((), generator=generator))
        for kind, share in zip(KINDS[1:], (self.cracked, self.free, self.gripped), strict=True):
            if u < share:
                return kind
            u -= share
        return "periodic"


def cell_of_kind(
    phases: UInt8[Tensor, "*space"],
    kind: Kind,
    *,
    n_phases: int,
    specimens_cracked: float,
    generator: torch.Generator,
) -> UInt8[Tensor, "*space"]:
    """Return a periodic cell as a case of some kind, of the same shape.

    Label `n_phases` is the pore of cracks and free sides, `n_phases` + 1 the grips'. A specimen is
    cut out of the cell and padded back to its shape, so that the periodic solver solves a problem
    that is not periodic: free sides carry no traction, grips move as all but rigid bodies.
    """
    pore, grip = n_phases, n_phases + 1
    dim, shape = phases.ndim, phases.shape
    u = torch.rand(3 + dim, generator=generator).tolist()
    first = int(u[0] * dim)
    if kind == "cracked" or (kind != "periodic" and u[1] < specimens_cracked):
        phases = cracked(phases, pore, generator)
    free = {"free sides": [first], "gripped": [a for a in range(dim) if a != first]}.get(kind, [])
    widths = {axis: _voxels(FREE_WIDTHS, u[3 + axis], shape[axis]) for axis in free}
    if kind == "gripped":
        widths[first] = _voxels(GRIP_WIDTHS, u[2], shape[first])
    for axis, width in widths.items():
        phases = phases.narrow(axis, 0, shape[axis] - width)
    if kind == "gripped":
        phases = padded(phases, axis=first, width=widths[first], label=grip)
    # The free sides last: they cut the grips too, which else would hold the sides.
    for axis in free:
        phases = padded(phases, axis=axis, width=widths[axis], label=pore)
    return phases


def padded(
    phases: Shaped[Tensor, "*space"], *, axis: int, width: int, label: int
) -> Shaped[Tensor, "*padded"]:
    """Return a cell with a strip of one label after its end along an axis.

    The period closes on the strip: with pore both ends of the axis are free, with a stiff phase
    both are held by one grip. Pad grips before free sides.

    Raises:
        DataError: No such axis, or no width.
    """
    if not (0 <= axis < phases.ndim and width >= 1):
        raise DataError(
            f"expected one of {phases.ndim} axes and a strip of at least 1 voxel, got axis {axis} "
            f"and width {width}"
        )
    shape = list(phases.shape)
    shape[axis] = width
    return torch.cat([phases, phases.new_full(shape, label)], axis)


def cracked(
    phases: UInt8[Tensor, "*space"], label: int, generator: torch.Generator
) -> UInt8[Tensor, "*space"]:
    """Return a cell with 1 to 3 random cracks, half of them kinked, as voxels of this label."""
    shape = tuple(phases.shape)
    dim, side = len(shape), min(shape)
    u = torch.rand(MOST_CRACKS, dim + 4, generator=generator).tolist()
    directions = torch.randn(MOST_CRACKS, 2, dim, generator=generator)
    count = 1 + int(torch.randint(MOST_CRACKS, (), generator=generator))
    phases = phases.clone()
    for k in range(count):
        chosen, turn, thick, sign, *place = u[k]
        low, high = CRACK_LENGTHS
        bend = KINKS[0] + (KINKS[1] - KINKS[0]) * abs(2 * sign - 1)
        mask = crack(
            shape,
            centre=[p * n for p, n in zip(place, shape, strict=True)],
            along=directions[k, 0],
            across=directions[k, 1],
            length=side * (low + (high - low) * chosen),
            thickness=THICKNESSES[int(thick * len(THICKNESSES))],
            kink=math.copysign(bend, sign - 0.5) if turn < 0.5 else 0.0,
        )
        phases[mask] = label
    return phases


def crack(
    shape: Sequence[int],
    *,
    centre: Sequence[float],
    along: Float[Tensor, " dim"],
    across: Float[Tensor, " dim"],
    length: float,
    thickness: float,
    kink: float = 0.0,
) -> Bool[Tensor, "*space"]:
    """Return the voxels of a crack in a periodic cell: a slit, in 3-D a penny (Sneddon 1946).

    Args:
        shape: Voxels of the cell.
        centre: Middle of the crack in voxels.
        along: A direction in the crack.
        across: Another direction; what of it is normal to `along` is the crack's normal.
        length: Tip to tip in voxels, less than the shortest side.
        thickness: Voxels, at least 1 (thinner ones would have gaps).
        kink: Angle (radian) by which the half towards `along` is turned towards the normal.
    """
    along = normalize(along, dim=0)
    normal = normalize(across - (across @ along) * along, dim=0)
    axes = []
    for n, c in zip(shape, centre, strict=True):
        offset = torch.arange(n) - c
        axes.append((offset + n / 2) % n - n / 2)  # to the nearest periodic image
    r = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    turned = math.cos(kink) * along + math.sin(kink) * normal
    turned_normal = math.cos(kink) * normal - math.sin(kink) * along
    size = (length / 2, thickness / 2)
    return _half(r, -along, normal, *size) | _half(r, turned, turned_normal, *size)


def _half(r: Tensor, towards: Tensor, normal: Tensor, reach: float, half: float) -> Tensor:
    """Return where a crack lies on one side of its centre."""
    off = torch.einsum("i,i...->...", normal, r)
    inside = torch.einsum("i,i...->...", towards, r) >= 0
    distance = (r.square().sum(0) - off.square()).clamp_min(0).sqrt()
    return inside & (distance <= reach) & (off.abs() <= half)


def _voxels(shares: tuple[float, float], u: float, side: int) -> int:
    low, high = shares
    return max(1, round(side * (low + (high - low) * u)))
