"""What the search wants: objectives, constraints, and when a value counts as proven."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError
from optimize.trial import Estimate, Value, checked_value, finite_number

# Keeps the square root's slope finite where every target is met exactly; a miss of 1e-8 is beyond
# any solver.
_SMOOTHING = 1e-16

Goal = str | float | int
Bound = float | int | None


@dataclass(frozen=True)
class Goals:
    """Objectives and constraints on named outcomes.

    Args:
        objectives: Outcome -> "maximize", "minimize" or a target number (not 0: the miss is
            relative to it).
        constraints: Outcome -> (low, high), None leaving a side open.
        weights: Target outcome -> weight of its squared relative miss; 1 where not given.
        tolerance: Largest relative width of a guaranteed bracket that still counts as confirmed.

    Raises:
        DataError: No objective, or an entry that does not fit.
    """

    objectives: Mapping[str, Goal]
    constraints: Mapping[str, Sequence[Bound]] = field(default_factory=dict)
    weights: Mapping[str, float | int] = field(default_factory=dict)
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not self.objectives:
            raise DataError("expected at least one objective, got none")
        objectives = {name: _objective(name, goal) for name, goal in self.objectives.items()}
        constraints = {name: _interval(name, c) for name, c in self.constraints.items()}
        weights = {name: finite_number(f"weight {name}", w) for name, w in self.weights.items()}
        for name, weight in weights.items():
            if isinstance(objectives.get(name, "maximize"), str) or weight <= 0:
                raise DataError(f"expected positive weights of targets, got {name}: {weight:g}")
        if not finite_number("tolerance", self.tolerance) > 0:
            raise DataError(f"expected a positive tolerance, got {self.tolerance:g}")
        object.__setattr__(self, "objectives", objectives)
        object.__setattr__(self, "constraints", constraints)
        object.__setattr__(self, "weights", weights)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the values that a trial needs: objectives first, then other constraints."""
        return tuple(dict.fromkeys([*self.objectives, *self.constraints]))

    @property
    def n_maximands(self) -> int:
        """Number of quantities to maximise: all targets together are one, each extreme is one."""
        extremes = sum(isinstance(goal, str) for goal in self.objectives.values())
        return extremes + (extremes < len(self.objectives))

    def maximands(self, y: Float[Tensor, "*batch outcome"]) -> Float[Tensor, "*batch maximand"]:
        """Return what to maximise from outcomes in the order of `outcomes`.

        Targets give one maximand, -sqrt(sum_i w_i ((y_i - t_i) / t_i)^2): the negative weighted
        relative miss on the raw property. Each extreme gives y or -y.
        """
        squares, columns = [], []
        for i, (name, goal) in enumerate(self.objectives.items()):
            if isinstance(goal, str):
                columns.append(y[..., i] if goal == "maximize" else -y[..., i])
            else:
                squares.append(self.weights.get(name, 1.0) * (y[..., i] / goal - 1).square())
        if squares:
            columns.insert(0, -(torch.stack(squares).sum(0) + _SMOOTHING).sqrt())
        return torch.stack(columns, -1)

    def sides(self) -> list[tuple[int, float, float]]:
        """Return each closed side of a constraint as (outcome, sign, bound).

        It is satisfied where sign * (y[..., outcome] - bound) <= 0.
        """
        closed = []
        for name, (low, high) in self.constraints.items():
            i = self.outcomes.index(name)
            closed += [] if low is None else [(i, -1.0, low)]
            closed += [] if high is None else [(i, 1.0, high)]
        return closed

    def confirmed(self, values: Mapping[str, Value]) -> bool:
        """Tell whether every value is a number or a guaranteed, narrow enough bracket."""
        return all(v.confirmed(self.tolerance) for v in values.values() if isinstance(v, Estimate))

    def feasible(self, values: Mapping[str, Value]) -> bool:
        """Tell whether the values are confirmed and satisfy every constraint."""
        y = [float(values[name]) for name in self.outcomes]
        return self.confirmed(values) and all(s * (y[i] - b) <= 0 for i, s, b in self.sides())

    def merits(self, values: Mapping[str, Value]) -> list[float]:
        """Return the maximands of one trial's values."""
        y = torch.tensor([float(values[name]) for name in self.outcomes], dtype=torch.float64)
        return self.maximands(y).tolist()

    def check(self, values: Mapping[str, Any]) -> dict[str, Value]:
        """Return told values, checked, in the order of `outcomes`.

        Raises:
            DataError: A name is unknown or missing, or a value is not finite.
        """
        expected = ", ".join(self.outcomes)
        unknown = sorted(set(values) - set(self.outcomes))
        if unknown:
            raise DataError(f"expected values for {expected}, got an unknown {', '.join(unknown)}")
        missing = [name for name in self.outcomes if name not in values]
        if missing:
            raise DataError(
                f"expected values for {expected}, {', '.join(missing)} is missing; tell all at once"
            )
        return {name: checked_value(name, values[name]) for name in self.outcomes}

    def to_json(self) -> dict[str, Any]:
        """Return the goals as plain data."""
        return asdict(self)


def _objective(name: str, goal: object) -> str | float:
    if isinstance(goal, str):
        if goal not in ("maximize", "minimize"):
            raise DataError(
                f"expected objective {name} to be maximize, minimize or a target number, "
                f"got {goal!r}"
            )
        return goal
    target = finite_number(f"target {name}", goal)
    if target == 0:
        raise DataError(
            f"expected a target other than 0 for {name}: the miss is relative to it; shift the "
            "outcome or minimize its absolute value"
        )
    return target


def _interval(name: str, constraint: object) -> tuple[float | None, float | None]:
    if not isinstance(constraint, (tuple, list)) or len(constraint) != 2:
        raise DataError(f"expected constraint {name} as (low, high), got {constraint!r}")
    low, high = (None if b is None else finite_number(f"bound {name}", b) for b in constraint)
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        raise DataError(
            f"expected constraint {name} with low <= high and one of them given, got {constraint!r}"
        )
    return low, high
