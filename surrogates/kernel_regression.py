"""Ridge and Gaussian-process regression in one algebra, with jackknife+ intervals."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError

PENALTIES = tuple(10.0**k for k in range(-6, 5))
LEVEL = 100.0  # prior variance of the mean, in those of the targets: hardly a prior
SMALLEST_NOISE = 1e-6


@dataclass(frozen=True)
class KernelRegression:
    """Regression of standardised targets t on rows x of a design: E t(x) = k(x)^T (K + s I)^-1 t.

    k is linear (ridge regression; all `lengths` equal) or squared exponential (a Gaussian
    process; Rasmussen and Williams 2006), plus the variance of an unknown mean. Of row i left out
    the error is r_i = a_i / A_ii with A = (K + s I)^-1, a = A t (ibid., section 5.4.2), and what
    the others predict at x is E t(x) - (A k(x))_i r_i: intervals by jackknife+ (Barber et al.
    2021) need no second fit. They leave the choice of lengths and noise out of account.
    """

    design: Float[Tensor, "row entry"]
    targets: Float[Tensor, " row"]
    lengths: Float[Tensor, " entry"]
    noise: float
    smooth: bool

    @cached_property
    def inverse(self) -> Float[Tensor, "row row"]:
        """(K + s I)^-1."""
        unit = torch.eye(len(self.design), dtype=self.design.dtype)
        return torch.linalg.inv(self._kernel(self.design, self.design) + self.noise * unit)

    @cached_property
    def weights(self) -> Float[Tensor, " row"]:
        """(K + s I)^-1 t."""
        return self.inverse @ self.targets

    @property
    def left_out(self) -> Float[Tensor, " row"]:
        """What each row's target is off by from what the other rows predict."""
        return self.weights / self.inverse.diagonal()

    @classmethod
    def ridge(
        cls, design: Float[Tensor, "row entry"], targets: Float[Tensor, " row"]
    ) -> "KernelRegression":
        """Return the ridge regression whose penalty has the least leave-one-out error."""
        length = torch.full((design.shape[1],), math.sqrt(design.shape[1])).double()
        fits = [cls(design, targets, length, penalty, False) for penalty in PENALTIES]
        return min(fits, key=lambda fit: float(fit.left_out.square().mean()))

    @classmethod
    def gaussian_process(
        cls,
        design: Float[Tensor, "row entry"],
        targets: Float[Tensor, " row"],
        groups: Sequence[int],
    ) -> "KernelRegression":
        """Return the process whose lengths and noise have the greatest posterior density.

        Args:
            design: Entries of about unit size.
            targets: Of zero mean and unit variance.
            groups: The group of each entry; those of a group share a length.
        """
        with warnings.catch_warnings():
            # BoTorch warns of few data, restarts and, when imported, of torch.jit's deprecation.
            warnings.simplefilter("ignore")
            lengths, noise = _likely_lengths(design, targets, groups)
        return cls(design, targets, lengths, max(noise, SMALLEST_NOISE), True)

    def predict(self, design: Float[Tensor, "new entry"]) -> Float[Tensor, " new"]:
        """Return the targets at rows of the design."""
        return self._kernel(design, self.design) @ self.weights

    def interval(
        self, design: Float[Tensor, "new entry"], *, confidence: float
    ) -> tuple[Float[Tensor, " new"], Float[Tensor, " new"]]:
        """Return the jackknife+ interval at rows of the design.

        It holds a new row of the same kind with probability at least 2 confidence - 1, and about
        `confidence` in practice; infinite where there are fewer than confidence / (1 - confidence)
        rows, from which no finite interval of that confidence follows.
        """
        cross = self._kernel(design, self.design)
        others = (cross @ self.weights)[:, None] - (cross @ self.inverse) * self.left_out
        size = self.left_out.abs()
        place = math.ceil(confidence * (len(self.targets) + 1)) - 1
        if place >= len(self.targets):
            endless = torch.full((len(design),), torch.inf, dtype=torch.float64)
            return -endless, endless
        upper = (others + size).sort(1).values[:, place]
        lower = -(size - others).sort(1).values[:, place]
        return lower, upper

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a / self.lengths, b / self.lengths
        return LEVEL + (torch.exp(-0.5 * torch.cdist(a, b).square()) if self.smooth else a @ b.mT)


def _likely_lengths(
    design: Tensor, targets: Tensor, groups: Sequence[int]
) -> tuple[Float[Tensor, " entry"], float]:
    """Return lengths, and noise relative to the signal, of the greatest posterior density."""
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.constraints import GreaterThan
    from gpytorch.kernels import ProductKernel, RBFKernel, ScaleKernel
    from gpytorch.likelihoods import GaussianLikelihood
    from gpytorch.mlls import ExactMarginalLogLikelihood
    from gpytorch.priors import LogNormalPrior

    named = list(dict.fromkeys(groups))
    places = [[k for k, own in enumerate(groups) if own == group] for group in named]
    prior = LogNormalPrior(math.log(2 * math.sqrt(len(places))), 1.0)
    kernels = [RBFKernel(active_dims=tuple(p), lengthscale_prior=prior) for p in places]
    covariance = ScaleKernel(ProductKernel(*kernels))
    # BoTorch's own prior expects simulations, almost without noise; measurements scatter.
    likelihood = GaussianLikelihood(
        noise_prior=LogNormalPrior(math.log(0.1), 1.5),
        noise_constraint=GreaterThan(SMALLEST_NOISE),
    )
    model = SingleTaskGP(
        design,
        targets.unsqueeze(1),
        likelihood=likelihood,
        covar_module=covariance,
        outcome_transform=None,
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(likelihood, model))
    lengths = torch.ones(design.shape[1], dtype=torch.float64)
    for place, kernel in zip(places, kernels, strict=True):
        lengths[place] = float(kernel.lengthscale.detach())
    return lengths, float(likelihood.noise.detach()) / float(covariance.outputscale.detach())


def conformal_margin(scores: Float[Tensor, " specimen"], *, confidence: float) -> float:
    """Return the margin that covers a new specimen's error with at least that probability.

    Split conformal prediction (Lei et al. 2018) over the errors of specimens held out; infinite
    where there are too few.
    """
    place = math.ceil(confidence * (len(scores) + 1)) - 1
    return math.inf if place >= len(scores) else float(scores.sort().values[place])


def nearest_distance(
    rows: Float[Tensor, "new entry"], known: Float[Tensor, "row entry"]
) -> Float[Tensor, " new"]:
    """Return the distance to the nearest known row, 1 at the known rows' own 95 % quantile.

    Raises:
        DataError: Fewer than two rows are known.
    """
    if len(known) < 2:
        raise DataError(f"expected at least two specimens, got {len(known)}")
    own = torch.cdist(known, known) + torch.where(
        torch.eye(len(known), dtype=torch.bool), torch.inf, 0.0
    )
    scale = own.amin(1).quantile(0.95).clamp_min(1e-9)
    return torch.cdist(rows, known).amin(1) / scale
