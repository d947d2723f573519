"""MicroBench M6: do generated means follow the process as real means do?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from microstructures.seeds import derive_seed

PERMUTATIONS = 199
Descriptors = Mapping[str, Float[np.ndarray, " _"]]


@dataclass(frozen=True)
class Calibration:
    """Regression of generated on real condition means, of one descriptor.

    Args:
        name: The descriptor.
        slope: Of the least-squares line; 1 is wanted. None where real means are all alike.
        r_squared: Share of the generated means' variance that the line explains; None there too.
        real: Real means by condition.
        made: Generated means by condition.
    """

    name: str
    slope: float | None
    r_squared: float | None
    real: tuple[float, ...]
    made: tuple[float, ...]


def calibrate(real: Sequence[Descriptors], made: Sequence[Descriptors]) -> list[Calibration]:
    """Return one regression per descriptor, conditions in the order given."""
    found = []
    for name in real[0]:
        x, y = (np.array([float(d[name].mean()) for d in side]) for side in (real, made))
        slope, r_squared = regression(x, y)
        found.append(Calibration(name, slope, r_squared, tuple(x.tolist()), tuple(y.tolist())))
    return found


def regression(
    x: Float[np.ndarray, " point"], y: Float[np.ndarray, " point"]
) -> tuple[float, float] | tuple[None, None]:
    """Return slope and R^2 of the least-squares line of y on x; None where x does not vary."""
    dx, dy = x - x.mean(), y - y.mean()
    xx, yy, xy = float(dx @ dx), float(dy @ dy), float(dx @ dy)
    if xx <= len(x) * (1e-9 * max(abs(float(x.mean())), 1e-9)) ** 2:
        return None, None
    return xy / xx, xy**2 / (xx * yy) if yy > 0 else 0.0


def worst_slope(found: Sequence[Calibration]) -> Calibration | None:
    """Return the descriptor whose slope is farthest from 1, None where no real means vary."""
    known = [c for c in found if c.slope is not None]
    return max(known, key=lambda c: abs((c.slope or 0) - 1)) if known else None


def worst_r_squared(found: Sequence[Calibration]) -> Calibration | None:
    """Return the descriptor with the lowest R^2, None where no real means vary."""
    known = [c for c in found if c.r_squared is not None]
    return min(known, key=lambda c: c.r_squared or 0) if known else None


def energy_p_values(
    real: Sequence[Descriptors], made: Sequence[Descriptors], *, seed: int
) -> Float[np.ndarray, " condition"]:
    """Return the p-value of the energy distance between descriptor vectors, per condition.

    Descriptors are divided by their pooled standard deviation; 199 permutations.
    """
    values = []
    for k, (r, m) in enumerate(zip(real, made, strict=True)):
        draw = np.random.default_rng(derive_seed("energy distance", seed, k))
        left, right = (np.stack([side[name] for name in r], 1) for side in (r, m))
        values.append(energy_test(left, right, draw))
    return np.array(values)


def energy_test(
    a: Float[np.ndarray, "n feature"],
    b: Float[np.ndarray, "m feature"],
    generator: np.random.Generator,
) -> float:
    """Return the permutation p-value of the energy distance 2 E|A-B| - E|A-A'| - E|B-B'|.

    Székely and Rizzo (2013), doi:10.1016/j.jspi.2013.03.018. Features that do not vary are left
    out; 1 where none does.
    """
    both = np.concatenate([a, b])
    spread = both.std(0)
    both = both[:, spread > 1e-12] / spread[spread > 1e-12]
    if both.shape[1] == 0:
        return 1.0
    distance = np.sqrt(((both[:, None] - both[None]) ** 2).sum(2))
    first = np.zeros(len(both))
    first[: len(a)] = 1
    members = np.stack([first, *(generator.permutation(first) for _ in range(PERMUTATIONS))])
    rest = 1 - members
    n, m = len(a), len(b)
    within_a = ((members @ distance) * members).sum(1) / n**2
    within_b = ((rest @ distance) * rest).sum(1) / m**2
    between = ((members @ distance) * rest).sum(1) / (n * m)
    energy = 2 * between - within_a - within_b
    return float((energy >= energy[0] - 1e-12).mean())
