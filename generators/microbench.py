"""MicroBench: one generator's score over many conditions, metrics M1 to M8."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from generators.microbench_calibration import (
    Calibration,
    calibrate,
    energy_p_values,
    worst_r_squared,
    worst_slope,
)
from generators.microbench_conditions import Measured, TrueCondition
from generators.microbench_ensembles import (
    SIGNIFICANT,
    EnsembleScore,
    Floors,
    FractionScore,
    by_name,
    ensemble_scores,
    fraction_score,
)
from generators.microbench_spread import Spread, spreads, worst_coverage, worst_ratio


@dataclass(frozen=True)
class MicroBenchScore:
    """What MicroBench says of one generator on one track.

    Args:
        conditions: Process points compared.
        real: Real samples per condition that it is held against (the fewest of any condition).
        made: Generated samples per condition.
        fraction: M1.
        ensembles: M2 to M5 by metric.
        calibrations: M6 by descriptor.
        energy_passed: M6, share of conditions whose energy distance has p > 0.05.
        spreads: M7 and M8 by descriptor.
        distance_ratio: M8, mean distance between two samples, generated over real.
    """

    conditions: int
    real: int
    made: int
    fraction: FractionScore
    ensembles: tuple[EnsembleScore, ...]
    calibrations: tuple[Calibration, ...]
    energy_passed: float
    spreads: tuple[Spread, ...]
    distance_ratio: float

    def __getitem__(self, name: str) -> EnsembleScore:
        return by_name(self.ensembles)[name]

    @property
    def slope(self) -> Calibration | None:
        """The descriptor whose slope is farthest from 1, None where no real means vary."""
        return worst_slope(self.calibrations)

    @property
    def r_squared(self) -> Calibration | None:
        """The descriptor with the lowest R^2, None where no real means vary."""
        return worst_r_squared(self.calibrations)

    @property
    def coverage(self) -> Spread | None:
        """The descriptor whose coverage is farthest from 0.90, None where none scatters."""
        return worst_coverage(self.spreads)

    @property
    def spread(self) -> Spread | None:
        """The descriptor whose spread is farthest from real, None where none scatters."""
        return worst_ratio(self.spreads)

    def to_json(self) -> dict[str, Any]:
        """Return the score as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "MicroBenchScore":
        """Return the score that `to_json` gave."""
        parts = {
            "fraction": FractionScore(**data["fraction"]),
            "ensembles": tuple(EnsembleScore(**e) for e in data["ensembles"]),
            "calibrations": tuple(
                Calibration(**{**c, "real": tuple(c["real"]), "made": tuple(c["made"])})
                for c in data["calibrations"]
            ),
            "spreads": tuple(Spread(**s) for s in data["spreads"]),
        }
        return cls(**{**data, **parts})


def score_generator(
    truth: Sequence[TrueCondition],
    made: Sequence[Measured],
    floors: Floors,
    *,
    phase_names: Sequence[str] = (),
    seed: int = 0,
) -> MicroBenchScore:
    """Score generated samples of every condition against the real ones.

    Args:
        truth: Real samples by condition.
        made: Generated samples by condition, in the same order.
        floors: Real against real of the same truth.
        phase_names: Names for the descriptors of more than two phases.
        seed: Draws resamples and permutations.
    """
    real = [c.reference.descriptors(phase_names) for c in truth]
    ours = [m.descriptors(phase_names) for m in made]
    distances = [
        sum(side) for side in ([m.distance for m in made], [c.real.distance for c in truth])
    ]
    p_values = energy_p_values(real, ours, seed=seed)
    return MicroBenchScore(
        conditions=len(truth),
        real=min(len(c.reference.statistics) for c in truth),
        made=min(len(m.statistics) for m in made),
        fraction=fraction_score(truth, made, floors),
        ensembles=tuple(ensemble_scores(truth, made, floors, seed=seed)),
        calibrations=tuple(calibrate(real, ours)),
        energy_passed=float((p_values > SIGNIFICANT).mean()),
        spreads=tuple(spreads(real, ours)),
        distance_ratio=distances[0] / distances[1] if distances[1] > 0 else 1.0,
    )
