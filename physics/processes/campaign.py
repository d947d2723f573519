"""What every simulator shares: process points for a data set, checked cells, seeds by index."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError, ProcessSpace
from microstructures.seeds import derive_seed, generator_for
from microstructures.structure import ProcessValue

Parameters = Mapping[str, ProcessValue] | Sequence[Mapping[str, ProcessValue]]


@dataclass(frozen=True)
class Campaign:
    """The checked cells of one call of `simulate`, each with its process point and its seed.

    Args:
        points: One process point per cell.
        shape: Voxels along each axis.
        seed: Seed of the campaign.
        first: Index of the first cell; cell k draws from (seed, first + k) alone, so that a
            campaign may be cut into any pieces.
    """

    points: tuple[dict[str, ProcessValue], ...]
    shape: tuple[int, ...]
    seed: int
    first: int = 0

    @classmethod
    def plan(
        cls,
        parameters: Parameters,
        *,
        space: ProcessSpace,
        shape: Sequence[int],
        seed: int,
        n: int = 1,
        first: int = 0,
        smallest: int = 4,
    ) -> "Campaign":
        """Return n cells in a row for each process point, checked before any work.

        Args:
            parameters: A process dict, or several; every parameter of the space must be known.
            space: Parameters of the simulator.
            shape: Voxels along each axis, 2 or 3 axes.
            seed: Seed of the campaign.
            n: Cells per process point.
            first: Index of the first cell.
            smallest: Least number of voxels along an axis.

        Raises:
            DataError: There is no point, a parameter is missing or out of bounds, n < 1, or the
                shape is not 2-D or 3-D or too small.
        """
        points = [parameters] if isinstance(parameters, Mapping) else list(parameters)
        shape = tuple(int(s) for s in shape)
        if len(shape) not in (2, 3) or min(shape) < smallest or n < 1:
            raise DataError(
                f"expected a 2-D or 3-D shape of at least {smallest} voxels a side and n >= 1, "
                f"got {shape} and n = {n}"
            )
        if not points:
            raise DataError("expected at least one process point to simulate, got none")
        known = [known_point(point, space=space) for point in points]
        return cls(tuple(dict(p) for p in known for _ in range(n)), shape, seed, first)

    def __len__(self) -> int:
        return len(self.points)

    def generator(self, k: int) -> torch.Generator:
        """Return the random generator of cell k, at the start of its stream."""
        return generator_for(self.seed, self.first + k)

    def white_noise(self) -> Float[Tensor, "batch *space"]:
        """Return one field of independent standard normal numbers per cell, in float64."""
        return torch.stack(
            [
                torch.randn(self.shape, generator=self.generator(k), dtype=torch.float64)
                for k in range(len(self))
            ]
        )


def known_point(
    point: Mapping[str, ProcessValue], *, space: ProcessSpace
) -> dict[str, ProcessValue]:
    """Return a copy of a process point that has a value for every parameter of the space.

    Raises:
        DataError: A parameter is missing, unknown to the space or out of bounds.
    """
    if any(math.isnan(u) for u in space.to_unit(point)):
        raise DataError(
            f"expected values for {', '.join(space.names)} to simulate, got {dict(point)}"
        )
    return dict(point)


def process_points(space: ProcessSpace, n: int, *, seed: int) -> list[dict[str, ProcessValue]]:
    """Return n process points that fill the space evenly (scrambled Sobol sequence).

    The first m of n points are the same for every n >= m, so a data set can grow.
    """
    sobol = torch.quasirandom.SobolEngine(
        len(space), scramble=True, seed=derive_seed(seed, "process points") % 2**31
    )
    return [space.from_unit(u) for u in sobol.draw(n, dtype=torch.float64).tolist()]
