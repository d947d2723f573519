"""The baseline: effective matrix from fractions and two-point correlation, by ridge regression."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from physics.statistics.correlation import two_point_correlation
from surrogates.labels import LabelledCells
from surrogates.quantities import Quantity
from surrogates.solver_steps import MatrixInterval, SolverSteps

REACH = 16  # voxels up to which the map of correlations is used
CELLS_AT_ONCE = 256
LOWEST_MODULUS = 1e-4  # in units of the reference; a pore is taken as this soft a phase
PENALTIES = tuple(10.0**k for k in range(-6, 4))


@dataclass(frozen=True)
class DescriptorModel:
    """Where the effective matrix lies between Reuss's and Voigt's, from descriptors alone.

    Descriptors: stiff fraction, logarithmic contrasts, and the leading principal components of
    the map of two-point correlations of the leading modulus (Kalidindi 2015), with all products
    of two of the first ones; the share's entries by ridge regression whose penalty is chosen by
    leave-one-out error. What every learned model with fields must beat.
    """

    mean: Float[Tensor, " lag"]
    components: Float[Tensor, "component lag"]
    centre: Float[Tensor, " entry"]
    scale: Float[Tensor, " entry"]
    weights: Float[Tensor, "design n2"]
    quantity: Quantity
    steps: int = 0

    @classmethod
    def fit(
        cls, labels: LabelledCells, *, components: int = 12, steps: int = 0
    ) -> "DescriptorModel":
        """Fit to labelled cells.

        Args:
            labels: The cells.
            components: Principal components of the correlations.
            steps: Predict the place between Reuss and the bound of that many of the solver's
                first steps, instead of Voigt's: what the property net starts from.

        Raises:
            DataError: Fewer cells than components.
        """
        if len(labels) <= components:
            raise DataError(f"expected more than {components} labelled cells, got {len(labels)}")
        maps, numbers, interval = described(labels, steps)
        mean = maps.mean(0)
        _, _, basis = torch.linalg.svd(maps - mean, full_matrices=False)
        entries = _entries((maps - mean) @ basis[:components].mT, numbers)
        centre, scale = entries.mean(0), entries.std(0).clamp_min(1e-9)
        design = torch.cat([(entries - centre) / scale, torch.ones(len(entries), 1)], 1).double()
        target = interval.share(labels.effective).flatten(1)
        weights = _ridge(design, target)
        return cls(mean, basis[:components], centre, scale, weights, labels.quantity, steps)

    def predict(self, labels: LabelledCells) -> Float[Tensor, "cell n n"]:
        """Return the matrices of cells, in their reference's unit; the labels are not looked at."""
        return self._at(*described(labels, self.steps))

    @torch.no_grad()
    def predict_fields(
        self, moduli: Float[Tensor, "cell modulus *space"]
    ) -> Float[Tensor, "cell n n"]:
        """Return the matrices of scaled local moduli, in their unit."""
        maps, numbers, *ends = _described(moduli, self.quantity, self.steps)
        return self._at(maps, numbers, MatrixInterval.between(*ends))

    def _at(self, maps: Tensor, numbers: Tensor, interval: MatrixInterval) -> Tensor:
        entries = _entries((maps - self.mean) @ self.components.mT, numbers)
        design = torch.cat(
            [(entries - self.centre) / self.scale, torch.ones(len(entries), 1)], 1
        ).double()
        n = interval.upper.shape[-1]
        share = (design @ self.weights).unflatten(1, (n, n))
        values, vectors = torch.linalg.eigh((share + share.mT) / 2)
        return interval.at((vectors * values.clamp(0, 1).unsqueeze(1)) @ vectors.mT)


@torch.no_grad()
def described(labels: LabelledCells, steps: int) -> tuple[Tensor, Tensor, MatrixInterval]:
    """Return correlation maps, numbers, and the interval from Reuss to Voigt of each cell.

    With `steps` the interval ends at the bound of the solver's first steps.
    """
    parts = [
        _described(labels.fields(rows, labels.phases[rows]), labels.quantity, steps)
        for rows in torch.arange(len(labels)).split(CELLS_AT_ONCE)
    ]
    maps, numbers, lower, upper = (torch.cat(column) for column in zip(*parts, strict=True))
    return maps, numbers, MatrixInterval.between(lower, upper)


def _described(
    moduli: Tensor, quantity: Quantity, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logs = moduli.clamp_min(LOWEST_MODULUS).log().flatten(2)
    low, high = logs.amin(2, keepdim=True), logs.amax(2, keepdim=True)
    stiffness = ((logs - low) / (high - low).clamp_min(1e-6))[:, -1].unflatten(1, moduli.shape[2:])
    fraction = stiffness.flatten(1).mean(1, keepdim=True)
    correlation = two_point_correlation(stiffness)
    for axis in range(1, correlation.ndim):
        reach = min(REACH, correlation.shape[axis] // 2)
        near = torch.arange(-reach, reach + 1) % correlation.shape[axis]
        correlation = correlation.index_select(axis, near)
    numbers = torch.cat([fraction, (high - low)[:, :, 0], logs[:, 0].mean(1, keepdim=True)], 1)
    found = SolverSteps.of(quantity.problem(moduli), max(steps, 1))
    upper = found.interval.upper if steps else found.voigt
    return correlation.flatten(1).float(), numbers.float(), found.reuss, upper


def _entries(scores: Tensor, numbers: Tensor) -> Tensor:
    first = torch.cat([scores[:, :4], numbers], 1)
    rows, columns = torch.tril_indices(first.shape[1], first.shape[1]).unbind(0)
    return torch.cat([scores, numbers, first[:, rows] * first[:, columns]], 1)


def _ridge(design: Tensor, target: Tensor) -> Tensor:
    """Return the weights with the least leave-one-out error over the penalties."""
    u, s, v = torch.linalg.svd(design, full_matrices=False)
    best: tuple[float, Tensor] | None = None
    for penalty in PENALTIES:
        filtered = s / (s.square() + penalty)
        weights = v.mT @ (filtered.unsqueeze(1) * (u.mT @ target))
        leverage = (u.square() * (s * filtered)).sum(1, keepdim=True)
        left_out = (target - design @ weights) / (1 - leverage).clamp_min(1e-6)
        error = float(left_out.square().mean())
        if best is None or error < best[0]:
            best = (error, weights)
    assert best is not None
    return best[1]
