"""Which cells to label next: how doubtful each is, and batches that are not all alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from microstructures import DataError
from microstructures.seeds import generator_for
from physics.mechanics import IsotropicElastic
from physics.mechanics.certificates import certify_cells
from physics.mechanics.materials import check_phases
from surrogates.familiarity import LAGS, describe
from surrogates.fields import FieldSurrogate
from surrogates.iterated import iterated
from surrogates.labels import LabelledCells
from surrogates.ladder import relative_width
from surrogates.properties import PropertySurrogate
from surrogates.quantities import Quantity, local_moduli, scaled
from surrogates.solver_steps import SolverSteps

CELLS_AT_ONCE = 64


@runtime_checkable
class Doubt(Protocol):
    """How unsure something is of cells whose labels it does not look at."""

    def __call__(self, pool: LabelledCells, /) -> Float[Tensor, " cell"]:
        """Return a number of at least 0 for every cell, larger where a label is wanted more."""
        ...


@dataclass(frozen=True)
class PredictedSpread:
    """The standard deviation that a property surrogate predicts, relative to its value.

    Root mean square over the diagonal of the matrix. It holds the members' own spread and their
    disagreement (query by committee; Seung et al. 1992).
    """

    surrogate: PropertySurrogate

    @torch.no_grad()
    def __call__(self, pool: LabelledCells, /) -> Float[Tensor, " cell"]:
        """Return the relative spread of every cell.

        Raises:
            DataError: The surrogate predicts another quantity, or does not take these sides.
        """
        if self.surrogate.quantity.name != pool.quantity.name:
            raise DataError(
                f"expected cells of {self.surrogate.quantity.name}, which the surrogate predicts, "
                f"got {pool.quantity.name}"
            )
        self.surrogate.check_shape(tuple(pool.phases.shape[1:]))
        found = []
        for rows in torch.arange(len(pool)).split(CELLS_AT_ONCE):
            parts = self.surrogate.estimate(pool.fields(rows, pool.phases[rows]))
            value, spread = (m.diagonal(dim1=1, dim2=2) for m in parts)
            found.append((spread / value).square().mean(1).sqrt())
        return torch.cat(found)


@dataclass(frozen=True)
class FirstStepsWidth:
    """The width of the certificate of the solver's first iterations, which asks no surrogate.

    The relative width of the diagonal's guaranteed interval: what is left for a surrogate to
    know. It depends on the cell alone, never on what was labelled. Cells with pores have no
    lower bound here, and so all the same width.
    """

    iterations: int = 2

    @torch.no_grad()
    def __call__(self, pool: LabelledCells, /) -> Float[Tensor, " cell"]:
        """Return the relative width of every cell."""
        found = []
        for rows in torch.arange(len(pool)).split(CELLS_AT_ONCE):
            moduli = pool.fields(rows, pool.phases[rows]).double()
            problem = pool.quantity.problem(moduli)
            bounds = certify_cells(problem, iterated(problem, None, self.iterations))
            found.append(relative_width(bounds.lower, bounds.upper))
        return torch.cat(found)


@dataclass(frozen=True)
class CertificateWidth:
    """The width of a field surrogate's certificate: where its fields are worst, guaranteed."""

    surrogate: FieldSurrogate

    @torch.no_grad()
    def __call__(self, pool: LabelledCells, /) -> Float[Tensor, " cell"]:
        """Return the relative width of every cell.

        Raises:
            DataError: The cells are not elastic, or the surrogate does not take these sides.
        """
        if pool.quantity.name != "stiffness":
            raise DataError(f"expected elastic cells, got {pool.quantity.name}")
        width = torch.empty(len(pool), dtype=torch.float64)
        every, which = pool.moduli.unique(dim=0, return_inverse=True)
        for k, moduli in enumerate(every):
            rows = torch.nonzero(which == k).flatten()
            for part in rows.split(CELLS_AT_ONCE):
                found = self.surrogate.predict(pool.phases[part], elastic_phases(moduli, pool))
                assert found.lower is not None
                assert found.upper is not None
                width[part] = relative_width(found.lower, found.upper)
        return width


def unlabelled_cells(
    phases: Shaped[Tensor, "cell *space"], materials: Sequence, quantity: Quantity
) -> LabelledCells:
    """Return cells of these materials, whose matrix is only the bound of the solver's first step.

    Raises:
        DataError: Phases or materials do not fit the quantity.
    """
    dim = len(check_phases(phases, len(materials)))
    values = quantity.phase_moduli(materials, dim).expand(len(phases), -1, -1)
    parts = zip(phases.split(CELLS_AT_ONCE), values.split(CELLS_AT_ONCE), strict=True)
    units, bounds = [], []
    for labels, moduli in parts:
        fields, unit = scaled(local_moduli(labels, moduli))
        units.append(unit)
        bounds.append(SolverSteps.of(quantity.problem(fields)).interval.upper)
    moduli = (values / torch.cat(units).view(-1, 1, 1)).float()
    return LabelledCells(phases.to(torch.uint8), moduli, torch.cat(bounds).float(), quantity)


def cell_features(pool: LabelledCells) -> Float[Tensor, "cell entry"]:
    """Return contrast, moduli's ratios, fraction and correlations, standardised over the pool.

    The same entries, weighed alike, as those of a surrogate's distance from its training set
    (`Familiarity`): cells near each other here would teach much the same.
    """
    rows = torch.arange(len(pool)).split(CELLS_AT_ONCE)
    entries = torch.cat([describe(pool.fields(part, pool.phases[part])) for part in rows])
    weight = torch.ones(entries.shape[1])
    weight[-LAGS:] = LAGS**0.5  # all correlations together weigh as one entry
    spread = entries.std(0, correction=0).clamp_min(1e-3) * weight
    return (entries - entries.mean(0)) / spread


def next_cells(
    doubt: Float[Tensor, " cell"],
    features: Float[Tensor, "cell entry"],
    count: int,
    *,
    known: Int[Tensor, " known"],
    seed: int,
) -> Int[Tensor, " count"]:
    """Return the rows of a pool to label next, none of them known already.

    Cells are drawn one after the other with a probability proportional to the square of
    doubt x distance from the nearest cell that is known or drawn (the seeding of k-means++;
    Arthur, Vassilvitskii 2007, as in BADGE; Ash et al. 2020). Doubt alone would fill a batch with
    copies of one cell, distance alone with outliers that are known well.

    Args:
        doubt: Of every cell of the pool, at least 0.
        features: In which cells are alike (`cell_features`).
        count: How many rows to return.
        known: Rows that have labels.
        seed: Of the draw.

    Raises:
        DataError: Fewer cells are left than are asked for, or a doubt is negative or not finite.
    """
    _check_pick(doubt, count, known)
    generator = generator_for(seed, "next cells", len(known))
    free = torch.ones(len(doubt), dtype=torch.bool)
    free[known] = False
    features = features.double()
    near = torch.full((len(doubt),), torch.inf, dtype=torch.float64)
    for part in known.split(CELLS_AT_ONCE) if len(known) else ():
        near = torch.minimum(near, torch.cdist(features, features[part]).amin(1))
    picked: list[int] = []
    for _ in range(count):
        # Before anything is known all cells are equally far.
        gap = torch.ones_like(near) if bool(near.isinf().all()) else near
        weight = (doubt.double() * gap).square() * free
        if not bool(weight.sum() > 0):
            weight = free.double()
        row = int(torch.multinomial(weight / weight.max(), 1, generator=generator))
        picked.append(row)
        free[row] = False
        near = torch.minimum(near, (features - features[row]).norm(dim=1))
    return torch.tensor(picked)


def elastic_phases(moduli: Float[Tensor, "2 phase"], pool: LabelledCells) -> list[IsotropicElastic]:
    """Return the materials of bulk (2-D: plane strain) and shear moduli, one per phase."""
    bulk, shear = moduli.double()
    lame = bulk - 2 / (pool.phases.ndim - 1) * shear
    ratio = lame / (2 * (lame + shear)).clamp_min(1e-300)
    return [
        IsotropicElastic(youngs_modulus_gpa=float(2 * g * (1 + nu)), poisson_ratio=float(nu))
        for g, nu in zip(shear, ratio, strict=True)
    ]


def _check_pick(doubt: Tensor, count: int, known: Tensor) -> None:
    left = len(doubt) - len(known.unique())
    if not 1 <= count <= left:
        raise DataError(
            f"expected to pick 1 to {left} cells, as many as have no label in a pool of "
            f"{len(doubt)}, got {count}; ask for fewer, or give a larger pool"
        )
    if not bool((torch.isfinite(doubt) & (doubt >= 0)).all()):
        raise DataError(
            f"expected doubts of at least 0, got {float(doubt.min()):g} to {float(doubt.max()):g}"
        )
