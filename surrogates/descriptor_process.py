"""A Gaussian process on descriptors: the effective matrix with its spread, refitted in no time."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from surrogates.descriptor_model import described
from surrogates.labels import LabelledCells
from surrogates.solver_steps import MatrixInterval

JITTER = 1e-8  # of the noise's variance, in units of the outputs'
PRIOR = 2.0  # standard deviation of the logarithms of lengths and sizes about their start


@dataclass(frozen=True)
class CellDescriptors:
    """What is known of cells before they are labelled.

    `entries`, standardised: the leading principal components of the two-point correlations, the
    numbers of `DescriptorModel`, and where the bound of the solver's first steps lies; `interval`
    runs from Reuss's matrix to that bound.
    """

    entries: Float[Tensor, "cell entry"]
    interval: MatrixInterval

    @classmethod
    def of(cls, cells: LabelledCells, *, components: int = 12, steps: int = 2) -> "CellDescriptors":
        """Describe cells, labelled or not; principal components and scales are these cells' own.

        Raises:
            DataError: Fewer cells than components.
        """
        if len(cells) <= components:
            raise DataError(f"expected more than {components} cells, got {len(cells)}")
        maps, numbers, interval = described(cells, steps)
        centred = maps - maps.mean(0)
        _, _, basis = torch.linalg.svd(centred, full_matrices=False)
        root = interval.upper.diagonal(dim1=1, dim2=2).sqrt()
        n = interval.upper.shape[-1]
        rows, columns = torch.tril_indices(n, n, -1).unbind(0)
        coupling = (interval.upper / root.unsqueeze(2) / root.unsqueeze(1))[:, rows, columns]
        ratio = (interval.upper / interval.lower).diagonal(dim1=1, dim2=2).log()
        parts = [centred @ basis[:components].mT, numbers, ratio.float(), coupling.float()]
        entries = torch.cat(parts, 1).double()
        spread = entries.std(0, correction=0)
        # What all cells share says nothing, and its round-off must not be blown up.
        told = spread > 1e-6 * entries.abs().mean(0).clamp_min(1e-3)
        return cls(((entries - entries.mean(0)) / spread)[:, told], interval)

    def rows(self, which: Tensor) -> "CellDescriptors":
        """Return some of the cells."""
        lower, upper, root = (end[which] for end in self.interval)
        return CellDescriptors(self.entries[which], MatrixInterval(lower, upper, root))


@dataclass(frozen=True)
class DescriptorProcess:
    """Gaussian-process regression of where a cell's matrix lies between Reuss and the bound.

    The entries of the share are independent outputs with one Matern-5/2 kernel, a length for each
    descriptor, and one noise, all of the greatest marginal likelihood under a wide log-normal
    prior (Rasmussen, Williams 2006, ch. 5). One kernel for all outputs needs one factorisation:
    a fit to 200 cells takes about a tenth of a second.
    """

    known: Float[Tensor, "cell entry"]
    logs: Float[Tensor, " parameter"]
    factor: Float[Tensor, "cell cell"]
    weights: Float[Tensor, "cell output"]
    centre: Float[Tensor, " output"]
    size: Float[Tensor, " output"]

    @classmethod
    def fit(
        cls, cells: CellDescriptors, effective: Float[Tensor, "cell n n"], *, iterations: int = 20
    ) -> "DescriptorProcess":
        """Fit to labelled cells, in the unit of their intervals.

        Raises:
            DataError: Fewer than two cells, or labels that are not finite.
        """
        if len(effective) < 2 or not bool(torch.isfinite(effective).all()):
            raise DataError(f"expected two or more solved cells, got {len(effective)}")
        share = cells.interval.share(effective.double())
        n = share.shape[-1]
        rows, columns = torch.tril_indices(n, n).unbind(0)
        outputs = share[:, rows, columns].double()
        centre, size = outputs.mean(0), outputs.std(0).clamp_min(1e-6)
        outputs = (outputs - centre) / size
        logs = _likeliest(cells.entries, outputs, iterations)
        factor = _factor(cells.entries, logs)
        weights = torch.cholesky_solve(outputs, factor)
        return cls(cells.entries, logs, factor, weights, centre, size)

    def predict(
        self, cells: CellDescriptors
    ) -> tuple[Float[Tensor, "cell n n"], Float[Tensor, "cell n n"]]:
        """Return matrices and the standard deviation of each entry, noise left out."""
        cross = _kernel(cells.entries, self.known, self.logs)
        explained = torch.linalg.solve_triangular(self.factor, cross.mT, upper=False)
        left = (2 * self.logs[-2]).exp() - explained.square().sum(0)
        mean = cross @ self.weights * self.size + self.centre
        variance = left.clamp_min(0).unsqueeze(1) * self.size.square()
        n = cells.interval.upper.shape[-1]
        values, vectors = torch.linalg.eigh(_symmetric(mean, n))
        share = (vectors * values.clamp(0, 1).unsqueeze(1)) @ vectors.mT
        square = cells.interval.root.square()
        spread = (square @ _symmetric(variance, n) @ square.mT).sqrt()
        return cells.interval.at(share), spread

    def doubt(self, cells: CellDescriptors) -> Float[Tensor, " cell"]:
        """Return the relative spread of cells, as `PredictedSpread` does."""
        value, spread = (m.diagonal(dim1=1, dim2=2) for m in self.predict(cells))
        return (spread / value).square().mean(1).sqrt()


def _likeliest(entries: Tensor, outputs: Tensor, iterations: int) -> Tensor:
    """Return logarithms of the lengths, the signal's and the noise's size."""
    count, width = entries.shape
    lengths = torch.full((width,), 0.5 * math.log(width), dtype=torch.float64)
    start = torch.cat([lengths, torch.tensor([0.0, -2.0], dtype=torch.float64)])
    logs = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logs], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        factor = _factor(entries, logs)
        misfit = 0.5 * (outputs * torch.cholesky_solve(outputs, factor)).sum()
        volume = outputs.shape[1] * factor.diagonal().log().sum()
        prior = 0.5 * ((logs - start) / PRIOR).square().sum()
        return (misfit + volume + prior) / (count * outputs.shape[1])

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return logs.detach()


def _kernel(a: Tensor, b: Tensor, logs: Tensor) -> Tensor:
    """Return the Matern-5/2 covariance of descriptors."""
    scale = (-logs[:-2]).exp()
    a, b = a * scale, b * scale
    square = a.square().sum(1).unsqueeze(1) + b.square().sum(1) - 2 * a @ b.mT
    distance = (5 * square.clamp_min(1e-12)).sqrt()
    return (2 * logs[-2]).exp() * (1 + distance + distance.square() / 3) * (-distance).exp()


def _factor(entries: Tensor, logs: Tensor) -> Tensor:
    noise = (2 * logs[-1]).exp() + JITTER
    unit = torch.eye(len(entries), dtype=entries.dtype)
    return torch.linalg.cholesky(_kernel(entries, entries, logs) + noise * unit)


def _symmetric(entries: Float[Tensor, "cell entry"], n: int) -> Float[Tensor, "cell n n"]:
    matrix = entries.new_zeros(len(entries), n, n)
    rows, columns = torch.tril_indices(n, n).unbind(0)
    matrix[:, rows, columns] = entries
    matrix[:, columns, rows] = entries
    return matrix
