"""Green bodies: powder packed at random, near contact, at a given density."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree

from physics.processes.particle_packing import Packing, draw_radii

# Powder settles this densely, then is thinned at random to the green density: in random packings
# as dense as these, particles touch.
SETTLED = {2: 0.80, 3: 0.60}
ROUNDS = 150


def green_body(
    green_density: float,
    radius_um: float,
    variation: float,
    *,
    cell_um: Float[np.ndarray, " axis"],
    generator: torch.Generator,
) -> Packing:
    """Return a random packing thinned to the green density in a periodic cell.

    Where particles touch they overlap by up to about a tenth of their radius, most in cells of few
    particles. Thinning keeps the contacts of the rest and leaves voids as wide as a particle, as
    compacts have them.

    Args:
        green_density: Share of the cell that the particles fill, to half a particle.
        radius_um: Mean radius of log-normal radii.
        variation: Standard deviation of the radii over their mean.
        cell_um: Edges of the cell.
        generator: Source of all randomness.

    Raises:
        DataError: The cell is too small for one particle.
    """
    d = len(cell_um)
    radii = draw_radii(SETTLED[d], radius_um, variation, cell_um=cell_um, generator=generator)
    start = torch.rand(len(radii), d, generator=generator, dtype=torch.float64).numpy() * cell_um
    settled = _settle(Packing(start, radii, cell_um))
    order = torch.randperm(len(radii), generator=generator).numpy()
    filled = SETTLED[d] * np.cumsum(radii[order] ** d) / (radii**d).sum()
    kept = np.sort(order[: 1 + int(np.abs(filled - green_density).argmin())])
    return Packing(settled.centres_um[kept], radii[kept], cell_um)


def _settle(packing: Packing) -> Packing:
    """Push overlapping particles apart, for a fixed number of rounds: jammed ones stay pressed."""
    centres, radii, cell = packing.centres_um, packing.radii_um, packing.cell_um
    for _ in range(ROUNDS):
        tree = KDTree(np.mod(centres, cell), boxsize=cell)
        first, second = tree.query_pairs(2 * radii.max(), output_type="ndarray").T
        away = centres[first] - centres[second]
        away -= cell * np.round(away / cell)
        distance = np.maximum(np.linalg.norm(away, axis=1), 1e-9 * radii.max())
        overlap = np.maximum(radii[first] + radii[second] - distance, 0)
        push = (overlap / distance / 2)[:, None] * away
        move = np.zeros_like(centres)
        np.add.at(move, first, push)
        np.add.at(move, second, -push)
        centres = centres + move
    return Packing(np.mod(centres, cell), radii, cell)
