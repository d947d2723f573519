"""What a study hands out and takes back: trials, and values with their brackets."""

import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from microstructures import DataError

Level = Literal["discrete", "continuum", "statistical"]
Status = Literal["pending", "told", "failed", "abandoned"]

# A bracket may miss its own value by the rounding of a float32 solver.
_ROUNDING = 1e-6
# Half-width of a two-sided 90 % normal interval in standard deviations.
_SIGMAS_90 = 1.6449


@dataclass(frozen=True)
class Estimate:
    """A value with its bracket.

    Args:
        value: The value, in the outcome's own unit.
        lower: Lower end of the bracket.
        upper: Upper end of the bracket.
        level: "discrete" (bounds within one scheme), "continuum" (bounds for the voxel geometry)
            or "statistical" (calibrated 90 % interval of a net, never confirmed).

    Raises:
        DataError: Not finite, the value outside its bracket, or an unknown level.
    """

    value: float
    lower: float
    upper: float
    level: Level

    def __post_init__(self) -> None:
        for name in ("value", "lower", "upper"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))
        if self.level not in ("discrete", "continuum", "statistical"):
            raise DataError(
                f"expected level discrete, continuum or statistical, got {self.level!r}"
            )
        slack = _ROUNDING * max(abs(self.value), abs(self.lower), abs(self.upper))
        if not self.lower - slack <= self.value <= self.upper + slack:
            raise DataError(
                f"expected lower <= value <= upper, got {self.lower:g}, {self.value:g}, "
                f"{self.upper:g}; check the bracket"
            )

    def __float__(self) -> float:
        return self.value

    @property
    def width(self) -> float:
        """Width of the bracket."""
        return max(self.upper - self.lower, 0.0)

    @property
    def deviation(self) -> float:
        """Standard deviation the bracket stands for: normal 90 %, or uniform between bounds."""
        return self.width / (2 * _SIGMAS_90 if self.level == "statistical" else math.sqrt(12))

    def confirmed(self, tolerance: float) -> bool:
        """Tell whether the bounds are guaranteed and narrower than `tolerance` x |value|."""
        return self.level != "statistical" and self.width <= tolerance * abs(self.value)


Value = float | Estimate


@dataclass(frozen=True)
class Trial:
    """One point of a study.

    Args:
        number: Its place in the study, from 0.
        parameters: Process names, and "latent" as a list.
        values: Told values by outcome, empty until then.
        status: "pending", "told", "failed" or "abandoned".
        reason: Why it failed.
    """

    number: int
    parameters: dict[str, Any]
    values: Mapping[str, Value]
    status: Status = "pending"
    reason: str = ""


def finite_number(name: str, value: object) -> float:
    """Return `value` as a float.

    Raises:
        DataError: It is not a number, or not finite.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError
        number = float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"expected {name} to be a finite number, got {value!r}; report a failed evaluation "
            "with fail(trial, reason)"
        )
    return number


def checked_value(name: str, value: object) -> Value:
    """Return a told value: an `Estimate` as it is, a number as a finite float.

    Raises:
        DataError: Neither an estimate nor a finite number.
    """
    return value if isinstance(value, Estimate) else finite_number(name, value)


def value_to_json(value: Value) -> Any:
    """Return a told value as plain data."""
    return asdict(value) if isinstance(value, Estimate) else value


def value_from_json(data: Any) -> Value:
    """Rebuild a told value from `value_to_json`."""
    return Estimate(**data) if isinstance(data, dict) else float(data)
