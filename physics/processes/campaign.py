"""Where to simulate: space-filling process points for a data set."""

import torch

from microstructures import ProcessSpace
from microstructures.seeds import derive_seed
from microstructures.structure import ProcessValue


def process_points(space: ProcessSpace, n: int, *, seed: int) -> list[dict[str, ProcessValue]]:
    """Return n process points that fill the space evenly (scrambled Sobol sequence).

    The first m of n points are the same for every n >= m, so a data set can grow.
    """
    sobol = torch.quasirandom.SobolEngine(
        len(space), scramble=True, seed=derive_seed(seed, "process points") % 2**31
    )
    return [space.from_unit(u) for u in sobol.draw(n, dtype=torch.float64).tolist()]
