"""Mean and scatter of physical descriptors, matched to the data's at every process point."""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generators.phase_net import signed_indicators
from microstructures.dataset import MicrostructureDataset
from microstructures.process_space import ProcessSpace
from physics.statistics import (
    euler_density,
    lattice_directions,
    lineal_path,
    radial_mean,
    specific_surface,
    two_point_correlation,
)

DEGREE = 4  # of the polynomials in the process parameters
MOST_TERMS = 80  # of such a polynomial; the degree is lowered to keep it
RIDGE = 1.0  # prior weight of a zero coefficient, in samples
FIRST_MEMORY, MEMORY = 8, 200  # steps for which generated samples count, at first and at last
FAR = 4.0  # standard deviations from which on descriptors pull less
LEAST_SCATTER = 0.3  # at any process point, over the root mean square of all
LOG_CHI_SQUARE = 1.27  # mean of -log of a squared standard normal number
CELLS_AT_ONCE = 64
DIRECTED_LAGS = (1, 2, 4, 8)  # in voxels per axis
KINDS = ("s2", "directed", "path", "surface", "euler")


def descriptors(
    x: Float[Tensor, "batch phase *space"], *, periodic: Sequence[bool]
) -> list[Float[Tensor, "batch value"]]:
    """Return descriptors of phase images in ±1, one tensor per kind of `KINDS`.

    S2 over all directions at every lag to a quarter of the shortest side, S2 along axes and
    diagonals at a few lags, lineal path, specific surface, Euler density. Of two phases the
    second alone has all but the lineal path and the Euler density. Differentiable; exact for hard
    phases.
    """
    x = (x.float() + 1) / 2
    reach = max(min(x.shape[2:]) // 4, 1)
    chosen = x[:, 1:] if x.shape[1] == 2 else x
    flat, every = chosen.flatten(0, 1), x.flatten(0, 1)
    lags = two_point_correlation(flat, periodic=periodic)
    s2 = radial_mean(lags, max_lag=reach)
    along = [
        lags[(slice(None), *(step * d for d in direction))]
        for direction in lattice_directions(len(periodic))
        for step in DIRECTED_LAGS
        if step <= reach
    ]
    path = lineal_path(every, max_lag=reach, periodic=periodic)
    surface = specific_surface(flat, periodic=periodic)
    euler = euler_density(every, periodic=periodic)
    # Lag zero is the fraction, which is no matter of shape.
    values = (s2[:, 1:], torch.stack(along, 1), path[..., 1:], surface, euler)
    return [v.reshape(len(x), -1) for v in values]


class DescriptorMatching(nn.Module):
    """A critic that is linear in physical descriptors, with its best answer in closed form.

    With d the descriptors, less the data's mean at the process point and in units of the data's
    scatter there, a generator that fits has E d = 0 and E d^2 = 1 at every process point. Against
    the sum of squares of these gaps a critic u . (d, d^2) has its optimum where u is the gap
    itself (a two-sample test with a finite kernel; Gretton et al. 2012, Li et al. 2017). The gaps
    are polynomials in the process parameters, fitted by least squares to what was generated in
    the last steps, with exponential forgetting; the data's mean and scatter are polynomials
    fitted once. So no process point needs more than one real sample. The generator descends
    u . (d, d^2). Each kind of descriptor has the weight of one, its scatter a quarter.
    """

    mean: Tensor
    log_scatter: Tensor
    least_scatter: Tensor
    real_moments: Tensor
    gram: Tensor
    moments: Tensor
    weight: Tensor
    seen: Tensor

    def __init__(self, space: ProcessSpace, sizes: Sequence[int], *, degree: int = DEGREE) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.terms = polynomial_terms(space, degree)
        width, values = _width(space, self.terms), sum(sizes)
        self.choices = [len(p.choices) if p.scale == "choice" else 0 for p in space]
        self.register_buffer("mean", torch.zeros(width, values))
        self.register_buffer("log_scatter", torch.zeros(width, values))
        self.register_buffer("least_scatter", torch.ones(values))
        self.register_buffer("real_moments", torch.zeros(width, 2 * values))
        self.register_buffer("gram", torch.zeros(width, width))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("moments", torch.zeros(width, 2 * values))
        kinds = torch.cat([torch.full((n,), 1 / n) for n in sizes])
        self.register_buffer("weight", torch.cat([kinds, kinds / 4]), persistent=False)

    @classmethod
    def fit(
        cls, dataset: MicrostructureDataset, *, parameter_dropout: float, generator: torch.Generator
    ) -> "DescriptorMatching":
        """Return the matching to a dataset, whose cells enter once whole and once with values hid.

        Args:
            dataset: Real cells.
            parameter_dropout: Share of process values hidden.
            generator: Draws which.
        """
        rows = []
        for part in dataset.phases.split(CELLS_AT_ONCE):
            images = signed_indicators(part, dataset.n_phases)
            rows.append(descriptors(images, periodic=dataset.periodic))
        matching = cls(dataset.space, [kind.shape[1] for kind in rows[0]])
        values = torch.cat([torch.cat(kinds, 1) for kinds in rows]).repeat(2, 1)
        units = dataset.process_units
        drop = torch.rand(units.shape, generator=generator) < parameter_dropout
        features = torch.cat(
            [matching.features(units, torch.ones_like(drop)), matching.features(units, ~drop)]
        )
        matching.mean = least_squares(features, values)
        residual = values - features @ matching.mean
        log_square = (residual.square() + 1e-4 * residual.square().mean(0) + 1e-16).log()
        matching.log_scatter = 0.5 * least_squares(features, log_square + LOG_CHI_SQUARE)
        # No density is known to better than one voxel of a cell; without this bound a descriptor
        # that is the same in all cells would outweigh every other.
        voxel = 1 / dataset.phases[0].numel()
        least = LEAST_SCATTER * residual.square().mean(0).sqrt()
        matching.least_scatter = least.clamp_min(voxel)
        matching.real_moments = least_squares(
            features, matching._standard_moments(values, features)
        )
        return matching

    def features(self, units: Tensor, known: Tensor) -> Float[Tensor, "batch term"]:
        """Return the polynomial's terms; unknown values enter as the middle and an indicator."""
        known = known & ~units.isnan()
        columns = []
        for index, choices in enumerate(self.choices):
            u = units[:, index].nan_to_num(0.5)
            if choices:
                one_hot = torch.arange(choices).to(u.device) == (u * choices).long()[:, None]
                columns.append((one_hot & known[:, index, None]).to(u.dtype))
        centred = torch.where(known, 2 * units.nan_to_num(0.5) - 1, 0.0)
        products = [
            torch.stack([centred[:, i] for i in term], 1).prod(1)
            if term
            else torch.ones_like(centred[:, 0])
            for term in self.terms
        ]
        return torch.cat([torch.stack(products, 1), (~known).to(centred.dtype), *columns], 1)

    def _standard_moments(self, values: Tensor, features: Tensor) -> Tensor:
        """Return d and d^2, bounded in slope and in size where d is far off."""
        scatter = torch.maximum((features @ self.log_scatter).exp(), self.least_scatter)
        d = (values - features @ self.mean) / scatter
        return torch.cat([FAR * (d / FAR).asinh(), d.square() / (1 + (d / FAR).square())], 1)

    def _gap(self, features: Tensor, excess: Tensor) -> Tensor:
        """Return the coefficients of the gaps, after taking in what the generator just made."""
        self.seen += 1
        keep = 1 - 1 / (FIRST_MEMORY + self.seen / 20).clamp(max=MEMORY)
        self.gram.mul_(keep).add_(features.T @ features)
        self.moments.mul_(keep).add_(features.T @ excess)
        prior = torch.ones(len(self.gram))
        prior[: len(self.terms)] = torch.tensor([4.0 ** len(term) for term in self.terms])
        return torch.linalg.solve(self.gram + prior.diag().to(self.gram), self.moments)

    def forward(
        self,
        generated: Float[Tensor, "batch value"],
        units: Float[Tensor, "batch parameter"],
        known: Tensor,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " kind"]]:
        """Return the generator's loss, and the root mean square gap per kind in scatters."""
        features = self.features(units, known)
        both = self._standard_moments(generated, features)
        with torch.no_grad():
            gap = features @ self._gap(features, both - features @ self.real_moments)
        half = both.shape[1] // 2
        sizes = gap[:, :half].square().mean(0).split(self.sizes)
        gaps = torch.stack([kind.mean().sqrt() for kind in sizes])
        return 2 * (gap * both * self.weight).sum(1).mean(), gaps


def polynomial_terms(space: ProcessSpace, degree: int = DEGREE) -> list[tuple[int, ...]]:
    """Return the monomials of the continuous parameters, each as the indices of its factors."""
    axes = [i for i, p in enumerate(space) if p.scale != "choice"]
    while degree > 1 and math.comb(len(axes) + degree, degree) > MOST_TERMS:
        degree -= 1
    return [
        term for n in range(degree + 1) for term in itertools.combinations_with_replacement(axes, n)
    ]


def _width(space: ProcessSpace, terms: Sequence[tuple[int, ...]]) -> int:
    return len(terms) + len(space) + sum(len(p.choices) for p in space if p.scale == "choice")


def least_squares(
    features: Float[Tensor, "sample term"], values: Float[Tensor, "sample value"]
) -> Float[Tensor, "term value"]:
    """Return the coefficients of a ridge regression."""
    gram = features.double().T @ features.double()
    prior = RIDGE * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + prior, features.double().T @ values.double()).float()
