"""Bayesian optimisation: one Gaussian process per outcome, constrained noisy log-EI on top.

Importing this module imports BoTorch, which takes seconds: `Study` imports it where it is used.
"""

from collections.abc import Callable, Sequence

import torch
from botorch.acquisition import qLogNoisyExpectedImprovement
from botorch.acquisition.objective import GenericMCObjective
from botorch.exceptions.errors import BotorchError
from botorch.exceptions.errors import ModelFittingError as _ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from botorch.optim import optimize_acqf
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.mlls import ExactMarginalLogLikelihood, SumMarginalLogLikelihood
from jaxtyping import Float
from torch import Tensor

from microstructures.seeds import derive_seed, generator_for
from optimize.goals import Goals

# What a Gaussian process that cannot be fitted or a degenerate acquisition raises.
MODEL_TROUBLE = (BotorchError, _ModelFittingError, ArithmeticError, RuntimeError, ValueError)

MC_SAMPLES = 128
RESTARTS = 4
RAW_SAMPLES = 128
FIT_ITERATIONS = 150
SEARCH_ITERATIONS = 40

# Brackets narrower than this share of an outcome's spread say less than the fitted noise does.
_NOISE_FLOOR = 0.01
# Weight of the sum in the augmented Chebyshev scalarisation (Knowles 2006, ParEGO).
_AUGMENTATION = 0.05

Point = list[float]


def propose(
    x: Float[Tensor, "trial dim"],
    y: Float[Tensor, "trial outcome"],
    deviation: Float[Tensor, "trial outcome"],
    *,
    goals: Goals,
    bounds: tuple[Point, Point],
    pending: Sequence[Point],
    n: int,
    snap: Callable[[Point], Point],
    seed: int,
) -> list[Point]:
    """Return `n` unit points that promise the largest improvement, found one after the other.

    Each point maximises qLogNEI (Ament et al. 2023, arXiv:2310.20708) of the objective composed
    on the modelled outcomes, with the constraints' outcomes modelled alike and the points before
    it pending. Deterministic in `seed`; the global random state stays untouched.

    Args:
        x: Unit coordinates of the told trials, at least two.
        y: Their outcomes in the order of `goals.outcomes`.
        deviation: Standard deviation of each outcome's observation, 0 where it is a bare number.
        goals: Objectives and constraints.
        bounds: Lowest and highest coordinates.
        pending: Points asked and not told.
        n: Number of points.
        snap: Rounds a unit point to a valid one.
        seed: Of the Monte Carlo samples, the restarts and the scalarisation weights.

    Raises:
        MODEL_TROUBLE: The data make no model; take quasi-random points instead.
    """
    box = torch.tensor(bounds, dtype=torch.float64)
    known = list(pending)
    # BoTorch draws its restarts from the global generator: it is seeded here and put back after.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _fit(x, y, deviation)
        for k in range(n):
            acquisition = _acquisition(model, x, y, goals, known, seed=derive_seed(seed, k))
            u, _ = optimize_acqf(
                acquisition,
                box,
                q=1,
                num_restarts=RESTARTS,
                raw_samples=RAW_SAMPLES,
                options={"maxiter": SEARCH_ITERATIONS, "sample_around_best": True},
            )
            if not u.isfinite().all():
                raise ArithmeticError("the acquisition's optimum is not finite")
            known.append(snap(torch.clamp(u[0], box[0], box[1]).tolist()))
    return known[len(pending) :]


def _fit(
    x: Float[Tensor, "trial dim"],
    y: Float[Tensor, "trial outcome"],
    deviation: Float[Tensor, "trial outcome"],
) -> SingleTaskGP | ModelListGP:
    """Return fitted Gaussian processes, one per outcome, with BoTorch's dimension-scaled priors.

    The noise is fixed for an outcome whose brackets are wide, and fitted for the others.
    """
    floor = _NOISE_FLOOR * y.std(0)
    fixed = (deviation > floor).any(0)
    noise = deviation.maximum(floor).square()
    if fixed.all() or not fixed.any():
        # One batch of processes: the same models as a list of them at a third of the calls.
        model = _process(x, y, noise if fixed.all() else None)
        mll = ExactMarginalLogLikelihood(model.likelihood, model)
    else:
        model = ModelListGP(
            *(
                _process(x, y[:, k : k + 1], noise[:, k : k + 1] if fixed[k] else None)
                for k in range(y.shape[1])
            )
        )
        mll = SumMarginalLogLikelihood(model.likelihood, model)
    fit_gpytorch_mll(mll, optimizer_kwargs={"options": {"maxiter": FIT_ITERATIONS}})
    return model


def _process(
    x: Float[Tensor, "trial dim"],
    y: Float[Tensor, "trial outcome"],
    noise: Float[Tensor, "trial outcome"] | None,
) -> SingleTaskGP:
    cube = torch.tensor([[0.0], [1.0]], dtype=x.dtype).expand(2, x.shape[1])
    return SingleTaskGP(
        x,
        y,
        train_Yvar=noise,
        input_transform=Normalize(x.shape[1], bounds=cube),
        outcome_transform=Standardize(y.shape[1]),
    )


def _acquisition(
    model: SingleTaskGP | ModelListGP,
    x: Float[Tensor, "trial dim"],
    y: Float[Tensor, "trial outcome"],
    goals: Goals,
    pending: Sequence[Point],
    *,
    seed: int,
) -> qLogNoisyExpectedImprovement:
    return qLogNoisyExpectedImprovement(
        model,
        x,
        sampler=SobolQMCNormalSampler(torch.Size([MC_SAMPLES]), seed=seed % 2**31),
        objective=GenericMCObjective(_scalarisation(y, goals, seed=seed)),
        constraints=_constraints(y, goals),
        X_pending=torch.tensor(list(pending), dtype=x.dtype) if pending else None,
    )


def _scalarisation(
    y: Float[Tensor, "trial outcome"], goals: Goals, *, seed: int
) -> Callable[..., Tensor]:
    """Return one objective in units of the spread that the told trials show.

    Several maximands f_k are joined by the augmented Chebyshev scalarisation
    min_k w_k f_k + 0.05 sum_k w_k f_k with weights drawn uniformly from the simplex, so that
    successive points spread along the Pareto front.
    """
    seen = goals.maximands(y)
    low, spread = seen.amin(0), _spread(seen)
    draw = torch.rand(goals.n_maximands, dtype=y.dtype, generator=generator_for(seed, "weights"))
    weights = -draw.clamp_min(1e-9).log()
    weights = weights / weights.sum()

    def objective(samples: Tensor, X: Tensor | None = None) -> Tensor:
        f = (goals.maximands(samples) - low) / spread
        if goals.n_maximands == 1:
            return f[..., 0]
        f = f * weights
        return f.amin(-1) + _AUGMENTATION * f.sum(-1)

    return objective


def _constraints(
    y: Float[Tensor, "trial outcome"], goals: Goals
) -> list[Callable[[Tensor], Tensor]] | None:
    """Return one callable per closed side, <= 0 where satisfied, in units of the seen spread."""
    spread = _spread(y)

    def side(i: int, sign: float, bound: float) -> Callable[[Tensor], Tensor]:
        return lambda samples: sign * (samples[..., i] - bound) / spread[i]

    return [side(*closed) for closed in goals.sides()] or None


def _spread(values: Float[Tensor, "trial column"]) -> Float[Tensor, "column"]:
    deviation = values.std(0)
    return torch.where(deviation > 0, deviation, torch.ones_like(deviation))
