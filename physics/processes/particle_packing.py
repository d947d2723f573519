"""Packing discs or spheres into a periodic cell without overlap."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from scipy.special import ndtri

from microstructures import ConvergenceError, DataError

# Fraction up to which particles are placed one after another; denser ones are swollen from it.
SEQUENTIAL = {2: 0.40, 3: 0.22}
# Densest packing, gaps included, that swelling is asked for; random packings jam at about 0.84
# in 2-D and 0.64 in 3-D.
DENSEST = {2: 0.80, 3: 0.60}
# Densest of all: hexagonal, face-centred cubic.
CRYSTAL = {2: math.pi / math.sqrt(12), 3: math.pi / math.sqrt(18)}
SWELLING = 1.02
# Particles are pushed this much further apart than asked, so that pushing ends after few rounds.
MARGIN = 1e-4
ROUNDS = 10_000
TRIES = 400
UNIT_BALL = {2: math.pi, 3: 4 * math.pi / 3}


@dataclass(frozen=True)
class Packing:
    """Discs (2-D) or spheres (3-D) in a periodic cell.

    Args:
        centres_um: Centres, `(particle, axis)`, inside the cell.
        radii_um: Radii.
        cell_um: Edges of the cell.
    """

    centres_um: Float[np.ndarray, "particle axis"]
    radii_um: Float[np.ndarray, " particle"]
    cell_um: Float[np.ndarray, " axis"]

    @property
    def fraction(self) -> float:
        """Share of the cell that the particles fill, by their radii."""
        d = len(self.cell_um)
        return float(UNIT_BALL[d] * (self.radii_um**d).sum() / self.cell_um.prod())

    @property
    def smallest_gap_um(self) -> float:
        """Least distance between two surfaces; negative for overlap, infinite for one particle."""
        if len(self.radii_um) < 2:
            return math.inf
        reach = _pairs_within(self, 4 * float(self.radii_um.max()))
        if not len(reach):
            reach = np.array(list(itertools.combinations(range(len(self.radii_um)), 2)))
        distance = np.linalg.norm(_separations(self, reach), axis=1)
        return float((distance - self.radii_um[reach].sum(1)).min())

    def labels(self, shape: Sequence[int]) -> Int[np.ndarray, "*space"]:
        """Return the particle, from 1, that covers each voxel's centre; 0 is between them.

        The share of covered voxels scatters about `fraction` with a standard deviation, in
        voxels per particle of radius R voxels, of 0.68 sqrt(R) in 2-D (Kendall 1948) and 0.92 R
        in 3-D.
        """
        labels = np.zeros(tuple(shape), dtype=np.int32)
        edge = self.cell_um / np.array(labels.shape)
        for k, (centre, radius) in enumerate(zip(self.centres_um, self.radii_um, strict=True)):
            square, index = 0.0, []
            for axis, (c, h) in enumerate(zip(centre, edge, strict=True)):
                near = np.arange(math.ceil((c - radius) / h - 0.5), (c + radius) / h - 0.5 + 1e-9)
                square = np.add.outer(square, (h * (near + 0.5) - c) ** 2)
                index.append(near.astype(int) % labels.shape[axis])
            block = labels[np.ix_(*index)]
            labels[np.ix_(*index)] = np.where(square <= radius**2, k + 1, block)
        return labels


def draw_radii(
    fraction: float,
    mean_um: float,
    variation: float,
    *,
    cell_um: Float[np.ndarray, " axis"],
    generator: torch.Generator,
) -> Float[np.ndarray, " particle"]:
    """Return log-normal radii of particles that fill this fraction of the cell, largest first.

    One radius is drawn from each of n equally likely classes; then all are scaled by a common
    factor, so that the fraction is exact though the number of particles is whole.

    Raises:
        DataError: The cell is too small for one particle, or for the largest.
    """
    d, volume = len(cell_um), float(cell_um.prod())
    count = round(fraction * volume / (UNIT_BALL[d] * _moment(mean_um, variation, d)))
    if count < 1:
        raise DataError(
            f"expected a cell for at least one particle, got edges {cell_um} um for fraction "
            f"{fraction:g} and mean radius {mean_um:g} um; choose more voxels"
        )
    classes = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
    normal = np.asarray(ndtri((np.arange(count) + classes) / count))
    radii = np.exp(math.sqrt(math.log1p(variation**2)) * normal)[::-1]
    return radii * (fraction * volume / (UNIT_BALL[d] * (radii**d).sum())) ** (1 / d)


def filled_fraction(
    fraction: float, mean_um: float, variation: float, gap_um: float, *, ndim: int
) -> float:
    """Return the expected fraction with half the gap added to every radius, which must not jam."""
    terms = (
        math.comb(ndim, k) * (gap_um / 2) ** (ndim - k) * _moment(mean_um, variation, k)
        for k in range(ndim + 1)
    )
    return fraction * sum(terms) / _moment(mean_um, variation, ndim)


def pack(
    radii_um: Float[np.ndarray, " particle"],
    *,
    cell_um: Float[np.ndarray, " axis"],
    gap_um: float = 0.0,
    sweeps: int = 30,
    generator: torch.Generator,
) -> Packing:
    """Place particles at random, none nearer to another than the gap.

    Random sequential addition as far as it goes easily, then swelling in steps of 2 % with
    overlapping neighbours pushed apart until none overlap, then Monte Carlo moves of one particle
    at a time, which drive the packing towards that of a hard-disc or hard-sphere fluid in
    equilibrium: soon in 2-D, slower the denser it is and in 3-D.

    Args:
        radii_um: Radii, best largest first.
        cell_um: Edges of the periodic cell.
        gap_um: Least distance between surfaces.
        sweeps: Monte Carlo moves per particle.
        generator: Source of all randomness.

    Raises:
        DataError: The largest particle does not fit into the cell.
        ConvergenceError: The particles jam.
    """
    d, reach = len(cell_um), radii_um + gap_um / 2
    if 2 * reach.max() > cell_um.min():
        raise DataError(
            f"expected a cell wider than its largest particle with its gap, "
            f"{2 * reach.max():.4g} um, got edges {cell_um} um; choose more voxels"
        )
    filled = UNIT_BALL[d] * (reach**d).sum() / cell_um.prod()
    scale = min(SWELLING, (SEQUENTIAL[d] / filled) ** (1 / d))
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    centres = _add_sequentially(scale * reach, cell_um, random)
    while scale < 1:
        scale = min(1.0, SWELLING * scale)
        centres = _push_apart(Packing(centres, scale * reach, cell_um))
    centres = _loosen(Packing(centres, reach, cell_um))
    # About the room that each particle has.
    room = 2 * reach.mean() * ((CRYSTAL[d] / filled) ** (1 / d) - 1)
    step = min(room, cell_um.min() / 8)
    for _ in range(sweeps):
        centres = _sweep(Packing(centres, reach, cell_um), step, random)
    return Packing(centres, radii_um, cell_um)


def _moment(mean: float, variation: float, k: int) -> float:
    """Return E[r^k] of log-normal radii."""
    return mean**k * (1 + variation**2) ** (k * (k - 1) / 2)


def _wrapped(difference: np.ndarray, cell: np.ndarray) -> np.ndarray:
    return difference - cell * np.rint(difference / cell)


def _separations(packing: Packing, pairs: np.ndarray) -> np.ndarray:
    first, second = packing.centres_um[pairs[:, 0]], packing.centres_um[pairs[:, 1]]
    return _wrapped(first - second, packing.cell_um)


def _pairs_within(packing: Packing, distance: float) -> np.ndarray:
    tree = KDTree(np.mod(packing.centres_um, packing.cell_um), boxsize=packing.cell_um)
    return tree.query_pairs(distance, output_type="ndarray")


def _add_sequentially(
    radii: np.ndarray, cell: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    centres = np.empty((len(radii), len(cell)))
    for k, radius in enumerate(radii):
        for _ in range(TRIES):
            trial = random.random((16, len(cell))) * cell
            away = _wrapped(trial[:, None] - centres[:k], cell)
            free = ((away**2).sum(-1) >= (radius + radii[:k]) ** 2).all(1)
            if free.any():
                centres[k] = trial[free.argmax()]
                break
        else:
            raise ConvergenceError(
                f"expected room for particle {k + 1} of {len(radii)}, found none in {16 * TRIES} "
                "tries; choose a larger cell or a narrower distribution of radii"
            )
    return centres


def _push_apart(packing: Packing, *, rounds: int = ROUNDS) -> np.ndarray:
    """Return centres without overlap: descent of the sum of squared overlaps."""
    radii, cell = (1 + MARGIN) * packing.radii_um, packing.cell_um
    centres, worst = packing.centres_um.copy(), math.inf
    for _ in range(rounds):
        now = Packing(centres, radii, cell)
        pairs = _pairs_within(now, 2 * float(radii.max()))
        away = _separations(now, pairs)
        distance = np.maximum(np.linalg.norm(away, axis=1), 1e-12)
        overlap = radii[pairs].sum(1) - distance
        worst = float((overlap - MARGIN * packing.radii_um[pairs].sum(1)).max(initial=0.0))
        if worst <= 0:
            return np.mod(centres, cell)
        touching = overlap > 0
        push = (overlap / distance / 2)[touching, None] * away[touching]
        ends = np.concatenate([pairs[touching, 0], pairs[touching, 1]])
        for axis, column in enumerate(np.concatenate([push, -push]).T):
            centres[:, axis] += np.bincount(ends, column, minlength=len(radii))
    raise ConvergenceError(
        f"expected {len(radii)} particles to fit at fraction {packing.fraction:.3f} with their "
        f"gaps, but the worst overlap is {worst:.2e} um after {rounds} rounds; choose a lower "
        "fraction or gap"
    )


def _loosen(packing: Packing) -> np.ndarray:
    """Return centres that leave room around each particle, so that no contacts remain.

    The particles are swollen halfway to the densest packing, as far as they go.
    """
    d, centres, scale = len(packing.cell_um), packing.centres_um, 1.0
    largest = ((packing.fraction + DENSEST[d]) / 2 / packing.fraction) ** (1 / d)
    while scale < largest:
        scale = min(largest, SWELLING * scale)
        swollen = Packing(centres, scale * packing.radii_um, packing.cell_um)
        try:
            centres = _push_apart(swollen, rounds=ROUNDS // 10)
        except ConvergenceError:
            break
    return centres


def _sweep(packing: Packing, step: float, random: np.random.Generator) -> np.ndarray:
    """Try one move of each particle in turn; Metropolis's rule for hard particles."""
    centres, radii, cell = packing.centres_um.copy(), packing.radii_um, packing.cell_um
    d = len(cell)
    moves = step * (2 * random.random((len(radii), d)) - 1)
    # Whatever can come into contact during this sweep.
    reach = radii + radii.max() + 2 * math.sqrt(d) * step
    tree = KDTree(np.mod(centres, cell), boxsize=cell)
    lists = tree.query_ball_point(np.mod(centres, cell), reach)
    for k, near in enumerate(lists):
        near.remove(k)
        trial = centres[k] + moves[k]
        away = centres[near] - trial
        away -= cell * np.rint(away / cell)
        if (np.einsum("ij,ij->i", away, away) >= (radii[near] + radii[k]) ** 2).all():
            centres[k] = trial
    return np.mod(centres, cell)
