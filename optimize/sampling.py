"""Where to look next: quasi-random points, the model's points, and the random-search baseline."""

import warnings
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.quasirandom import SobolEngine

from microstructures.seeds import derive_seed, generator_for
from optimize.design_space import DesignSpace
from optimize.ledger import Ledger
from optimize.trial import Estimate, Trial, Value

Point = list[float]


def sobol_points(space: DesignSpace, n: int, *, seed: int, first: int = 0) -> list[Point]:
    """Return `n` valid unit points of the scrambled Sobol sequence of `seed`, from index `first`.

    Scrambling after Owen (1998), as torch implements it. Point k is the same whatever `first`.
    """
    engine = SobolEngine(space.dim, scramble=True, seed=derive_seed(seed, "sobol"))
    points = engine.fast_forward(first).draw(n, dtype=torch.float64)
    return [space.snap(u) for u in points.tolist()]


def random_trials(space: DesignSpace, n: int, seed: int) -> list[Trial]:
    """Return `n` pending trials drawn from the prior, the baseline of every search.

    Process coordinates are uniform in the unit cube, latent codes N(0, I) without the outer 1 %
    tails. To rank them, `attach` them with their values to a study in memory.
    """
    u = torch.rand(n, space.dim, dtype=torch.float64, generator=generator_for(seed, "random"))
    return [Trial(k, space.from_unit(point), {}) for k, point in enumerate(u.tolist())]


def next_points(ledger: Ledger, n: int, *, seed: int, initial: int) -> list[Point]:
    """Return `n` valid unit points to try next, drawn from the seed and the events alone.

    Quasi-random until `initial` trials run or are told, then the maxima of the acquisition;
    quasi-random again, with a warning, where the told values make no model.
    """

    def sobol(count: int, skip: int = 0) -> list[Point]:
        first = len(ledger.trials) + skip
        return sobol_points(ledger.space, count, seed=seed, first=first)

    running = len(ledger.with_status("pending", "told"))
    drawn = sobol(min(n, max(0, initial - running)))
    if len(drawn) == n:
        return drawn
    points, trouble = _model_points(ledger, n - len(drawn), drawn, seed=seed)
    if trouble:
        warnings.warn(f"asking quasi-random points: {trouble}", RuntimeWarning, stacklevel=3)
        return sobol(n)
    known = _units(ledger.space, ledger.with_status("pending", "told", "failed"))
    return _without_repeats(drawn + points, known, lambda k: sobol(1, skip=k)[0])


def _model_points(
    ledger: Ledger, n: int, drawn: list[Point], *, seed: int
) -> tuple[list[Point], str]:
    """Return `n` points of the model, or none and the reason."""
    told = ledger.with_status("told")
    if len(told) < 2:
        return [], "fewer than two trials are told"
    # A failed point stays pending for ever: the model then expects nothing new near it.
    waiting = ledger.with_status("pending", "failed")
    with warnings.catch_warnings():
        # BoTorch and its kin warn of what is dealt with here: few or constant data, added
        # jitter, restarts of a fit; and importing them warns of torch.jit's deprecation.
        warnings.simplefilter("ignore")
        from optimize import acquisition

        try:
            points = acquisition.propose(
                torch.tensor(_units(ledger.space, told), dtype=torch.float64),
                _matrix(told, ledger.goals.outcomes, float),
                _matrix(told, ledger.goals.outcomes, _deviation),
                goals=ledger.goals,
                bounds=ledger.space.bounds,
                pending=_units(ledger.space, waiting) + drawn,
                n=n,
                snap=ledger.space.snap,
                seed=derive_seed(seed, "ask", ledger.n_events),
            )
        except acquisition.MODEL_TROUBLE as error:
            return [], f"the told values make no model ({error})"
    return points, ""


def _without_repeats(
    points: list[Point], known: list[Point], fresh: Callable[[int], Point]
) -> list[Point]:
    """Return the points with a fresh one in place k of each that is known: it teaches nothing."""
    kept: list[Point] = []
    for k, u in enumerate(points):
        kept.append(fresh(k) if u in known + kept else u)
    return kept


def _units(space: DesignSpace, trials: Sequence[Trial]) -> list[Point]:
    return [space.to_unit(t.parameters) for t in trials]


def _matrix(
    trials: Sequence[Trial], outcomes: Sequence[str], read: Callable[[Value], float]
) -> Float[Tensor, "trial outcome"]:
    rows = [[read(t.values[name]) for name in outcomes] for t in trials]
    return torch.tensor(rows, dtype=torch.float64)


def _deviation(value: Value) -> float:
    return value.deviation if isinstance(value, Estimate) else 0.0
