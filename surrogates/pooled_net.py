"""The pooled net: moduli fields and the solver's first steps → where the answer lies."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from microstructures import DataError
from networks.folding import FOLD, fold
from networks.unet import Encoder
from surrogates.quantities import Name, Quantity, quantity_named
from surrogates.solver_steps import MatrixInterval, SolverSteps

LOWEST_MODULUS = 1e-4  # in units of the reference; a pore enters the net as this soft a phase
FIRST_DIAGONAL = 1.5  # of the untrained net's factor: a share of about 0.7


class ShareEstimate(NamedTuple):
    """A share of the interval from Reuss's matrix to the solver's first bound, and its spread.

    `log_spread` is the logarithm of the standard deviation of each entry of the share.
    """

    mean: Float[Tensor, "batch n n"]
    log_spread: Float[Tensor, "batch n n"]
    steps: SolverSteps

    @property
    def interval(self) -> MatrixInterval:
        """The interval of which it is the share."""
        return self.steps.interval


class PooledNet(nn.Module):
    """Effective matrix of periodic cells by a convolutional net pooled over space.

    The net sees the logarithms of the local moduli and the strains of the solver's first steps,
    which carry the long-range interaction, and is told where the energy of these steps lies
    between Reuss and Voigt. With the pooled features y it answers with a lower triangle L(y) and

        share = I - (I + L L^T)^-1,    C = R + root share root^T,

    root root^T = U - R, so that C lies between Reuss's matrix R and the bound U of the solver's
    first steps whatever the weights are, and so below Voigt's. Units cancel; shifts by an even
    number of voxels do not change the answer; contrast is an input.

    Limits: the size and length scales of training; accuracy falls with contrast.

    Args:
        quantity: "stiffness" or "conductivity".
        dim: 2 or 3.
        widths: Channels per level; the first level is a 2x space-to-depth grid.
        features: Pooled features.
        steps: Solver steps taken first.
        members: Nets of the ensemble, trained side by side.
    """

    def __init__(
        self,
        *,
        quantity: Name,
        dim: int,
        widths: Sequence[int],
        features: int,
        steps: int,
        members: int,
    ) -> None:
        super().__init__()
        self.config: Mapping[str, Any] = {
            "quantity": quantity,
            "dim": dim,
            "widths": list(widths),
            "features": features,
            "steps": steps,
            "members": members,
        }
        self.quantity: Quantity = quantity_named(quantity)
        self.dim, self.steps, self.n = dim, steps, self.quantity.components(dim)
        self.members = nn.ModuleList(
            _Member(
                channels=(self.quantity.moduli + self.n**2) * FOLD**dim,
                numbers=_numbers(self.n) + self.quantity.moduli,
                n=self.n,
                widths=widths,
                features=features,
                dim=dim,
            )
            for _ in range(members)
        )
        self.size_multiple = FOLD * 2 ** (len(widths) - 1)

    def forward(self, moduli: Float[Tensor, "batch modulus *space"]) -> list[ShareEstimate]:
        """Return each member's estimate from scaled local moduli, differentiable in them.

        The contrast, which the members are told, is held in the gradient.

        Raises:
            DataError: The dimension or a side does not fit.
        """
        channels, numbers, steps = self.described(moduli)
        return [self.estimate(k, channels, numbers, steps) for k in range(len(self.members))]

    def described(
        self, moduli: Float[Tensor, "batch modulus *space"]
    ) -> tuple[Tensor, Tensor, SolverSteps]:
        """Return what the members see: fields, numbers, and the solver's first steps."""
        self.check_shape(moduli.shape[2:])
        steps = SolverSteps.of(self.quantity.problem(moduli), self.steps)
        logs = moduli.clamp_min(LOWEST_MODULUS).log()
        # The contrast is the materials': no single voxel's gradient may move it.
        flat = logs.detach().flatten(2)
        contrast = flat.amax(2) - flat.amin(2)
        place = MatrixInterval.between(steps.reuss, steps.voigt).share(steps.interval.upper)
        rows, columns = torch.tril_indices(self.n, self.n).unbind(0)
        numbers = torch.cat([place[:, rows, columns].to(flat), contrast], 1)
        return fold(torch.cat([logs, steps.strain.flatten(1, 2)], 1)), numbers, steps

    def estimate(
        self, member: int, channels: Tensor, numbers: Tensor, steps: SolverSteps
    ) -> ShareEstimate:
        """Return one member's estimate from what `described` returned."""
        answer = self._member(member)(channels, numbers)
        factor, log_spread = (_triangle(part.double(), self.n) for part in answer)
        unit = torch.eye(self.n, dtype=factor.dtype, device=factor.device)
        factor = factor + FIRST_DIAGONAL * unit
        share = unit - torch.linalg.inv(unit + factor @ factor.mT)
        symmetric = log_spread + log_spread.tril(-1).mT
        return ShareEstimate(share, symmetric, steps)

    def pooled(
        self, member: int, channels: Tensor, numbers: Tensor
    ) -> Float[Tensor, "batch feature"]:
        """Return a member's pooled features of what `described` returned."""
        return self._member(member).pooled(channels, numbers)

    def spread_head(self, member: int) -> nn.Module:
        """Return what reads a member's spread off its pooled features."""
        return self._member(member).spread

    def check_shape(self, shape: Sequence[int]) -> None:
        """Refuse cells that the net cannot take.

        Raises:
            DataError: The dimension differs, or a side is not a multiple of `size_multiple`.
        """
        if len(shape) != self.dim or any(side % self.size_multiple for side in shape):
            raise DataError(
                f"expected {self.dim} sides that are multiples of {self.size_multiple}, got "
                f"{tuple(shape)}; crop or resample the cells, or use the solver"
            )

    def _member(self, member: int) -> "_Member":
        return cast(_Member, self.members[member])


class _Member(nn.Module):
    def __init__(
        self,
        *,
        channels: int,
        numbers: int,
        n: int,
        widths: Sequence[int],
        features: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.told = nn.Sequential(nn.Linear(numbers, features), nn.SiLU())
        self.encoder = Encoder(
            in_channels=channels,
            out_features=features,
            widths=widths,
            condition=features,
            periodic=(True,) * dim,
        )
        width, entries = 2 * features, _numbers(n)
        self.answer = _head(width, features, entries, first=0.0)
        # Spreads start near what the first answer is off by.
        self.spread = _head(width, features, entries, first=-2.0)

    def pooled(self, channels: Tensor, numbers: Tensor) -> Tensor:
        told = self.told(numbers)
        return torch.cat([F.silu(self.encoder(channels, told)), told], 1)

    def forward(self, channels: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.pooled(channels, numbers)
        # The spread is read off the features and must not bend them: its likelihood outweighs
        # small errors.
        return self.answer(seen), self.spread(seen.detach())


def _head(width: int, features: int, entries: int, *, first: float) -> nn.Sequential:
    last = nn.Linear(features, entries)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, first)
    return nn.Sequential(nn.Linear(width, features), nn.SiLU(), last)


def _numbers(n: int) -> int:
    return n * (n + 1) // 2


def _triangle(entries: Float[Tensor, "batch entry"], n: int) -> Float[Tensor, "batch n n"]:
    """Return lower triangles of their entries, row by row."""
    rows, columns = torch.tril_indices(n, n).unbind(0)
    triangle = entries.new_zeros(len(entries), n, n)
    triangle[:, rows, columns] = entries
    return triangle
