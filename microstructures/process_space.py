"""Process parameters with units and bounds, and their map to and from the unit cube."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from microstructures.errors import DataError
from microstructures.structure import ProcessValue

Scale = Literal["linear", "log", "integer", "choice"]


@dataclass(frozen=True)
class Parameter:
    """One process parameter.

    Args:
        name: Key in a process dict, for example "temperature_k".
        unit: Unit as text, "-" for none.
        low: Lower bound (not for a choice).
        high: Upper bound (not for a choice).
        scale: "linear", "log", "integer" or "choice".
        choices: The categories of a choice.

    Raises:
        DataError: Bounds missing, reversed or not finite, or choices that do not fit the scale.
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    scale: Scale = "linear"
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise DataError(f"expected a parameter name, got {self.name!r}")
        if not self.unit or not isinstance(self.unit, str):
            raise DataError(
                f'expected a unit for {self.name}, got {self.unit!r}; write "-" if it has none'
            )
        if self.scale == "choice":
            self._check_choices()
            return
        object.__setattr__(self, "choices", ())
        if self.scale not in ("linear", "log", "integer"):
            raise DataError(
                f"expected scale linear, log, integer or choice for {self.name}, got {self.scale!r}"
            )
        if self.low is None or self.high is None or not _finite(self.low, self.high):
            raise DataError(
                f"expected finite bounds for {self.name}, got {self.low} to {self.high}"
            )
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))
        if self.low >= self.high:
            raise DataError(
                f"expected the lower bound of {self.name} below the upper, got {self.low} to "
                f"{self.high}; swap them"
            )
        if self.scale == "log" and self.low <= 0:
            raise DataError(f"expected a positive lower bound for log {self.name}, got {self.low}")
        if self.scale == "integer" and not (self.low.is_integer() and self.high.is_integer()):
            raise DataError(
                f"expected whole-number bounds for {self.name}, got {self.low} to {self.high}"
            )
        if not math.isfinite(self.high - self.low):
            raise DataError(f"expected bounds of {self.name} closer than 1e308 to each other")

    def _check_choices(self) -> None:
        choices = () if isinstance(self.choices, str) else tuple(self.choices)
        if not choices or not all(isinstance(c, str) and c for c in choices):
            raise DataError(f"expected choices in words for {self.name}, got {self.choices!r}")
        if len(set(choices)) != len(choices):
            raise DataError(f"expected distinct choices for {self.name}, got {choices}")
        object.__setattr__(self, "choices", choices)

    def from_unit(self, u: float) -> ProcessValue:
        """Return the value at unit coordinate `u` in [0, 1]."""
        if not 0 <= u <= 1:
            raise DataError(f"expected a unit coordinate in [0, 1] for {self.name}, got {u}")
        if self.scale == "choice":
            return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]
        assert self.low is not None
        assert self.high is not None
        match self.scale:
            case "log":
                value = math.exp((1 - u) * math.log(self.low) + u * math.log(self.high))
            case "integer":
                return round(self.low + u * (self.high - self.low))
            case _:
                value = (1 - u) * self.low + u * self.high
        return min(max(value, self.low), self.high)

    def to_unit(self, value: ProcessValue) -> float:
        """Return the unit coordinate of a value; NaN when it is unknown (None).

        Raises:
            DataError: The value is not a number, lies outside the bounds, or is no choice.
        """
        if value is None:
            return math.nan
        if self.scale == "choice":
            if value not in self.choices:
                raise DataError(
                    f"expected {self.name} to be one of {', '.join(self.choices)}, got {value!r}"
                )
            return (self.choices.index(str(value)) + 0.5) / len(self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, (str, bool)) or not _finite(value):
            raise DataError(f"expected {self.name} to be a finite number, got {value!r}")
        slack = 1e-9 * (self.low if self.scale == "log" else self.high - self.low)
        if not self.low - slack <= value <= self.high + slack:
            unit = "" if self.unit == "-" else f" {self.unit}"
            raise DataError(
                f"expected {self.name} between {self.low:g} and {self.high:g}{unit}, got "
                f"{value:g}; choose a value inside the bounds"
            )
        if self.scale == "integer" and value != round(value):
            raise DataError(f"expected {self.name} to be a whole number, got {value:g}")
        if self.scale == "log":
            bottom = math.log(self.low)
            u = (math.log(value) - bottom) / (math.log(self.high) - bottom)
        else:
            u = (value - self.low) / (self.high - self.low)
        return min(max(u, 0.0), 1.0)


@dataclass(frozen=True)
class ProcessSpace:
    """An ordered set of process parameters.

    >>> space = ProcessSpace([Parameter("time_h", "h", 1.0, 100.0, "log")])
    >>> space.from_unit([0.5])
    {'time_h': 10.0}
    """

    parameters: tuple[Parameter, ...]

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        names = [p.name for p in parameters]
        if len(set(names)) != len(names):
            raise DataError(f"expected distinct parameter names, got {names}")
        object.__setattr__(self, "parameters", tuple(parameters))

    def __len__(self) -> int:
        return len(self.parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in order."""
        return tuple(p.name for p in self.parameters)

    def from_unit(self, u: Sequence[float]) -> dict[str, ProcessValue]:
        """Return the process at unit coordinates, one per parameter; NaN gives None."""
        if len(u) != len(self):
            raise DataError(f"expected {len(self)} unit coordinates, got {len(u)}")
        return {
            p.name: None if math.isnan(x) else p.from_unit(float(x))
            for p, x in zip(self.parameters, u, strict=True)
        }

    def to_unit(self, process: Mapping[str, ProcessValue]) -> list[float]:
        """Return unit coordinates in [0, 1]; NaN for a parameter that is None or missing.

        Raises:
            DataError: A name is not in the space, or a value is out of bounds.
        """
        unknown = sorted(set(process) - set(self.names))
        if unknown:
            raise DataError(
                f"expected process parameters {', '.join(self.names)}, got {', '.join(unknown)}"
            )
        return [p.to_unit(process.get(p.name)) for p in self.parameters]

    def narrowed(self, ranges: Mapping[str, Sequence[float]]) -> "ProcessSpace":
        """Return the same parameters, some with narrower bounds; `ranges` is name to (low, high).

        Raises:
            DataError: A name is unknown or a choice, or a range is reversed or leaves the space.
        """
        unknown = sorted(set(ranges) - set(self.names))
        if unknown:
            raise DataError(
                f"expected ranges of {', '.join(self.names)}, got one of {', '.join(unknown)}"
            )
        parameters = []
        for parameter in self:
            if parameter.name in ranges:
                low, high = ranges[parameter.name]
                for bound in (low, high):
                    parameter.to_unit(bound)
                parameter = replace(parameter, low=low, high=high)
            parameters.append(parameter)
        return ProcessSpace(parameters)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the parameters as plain data."""
        return [asdict(p) for p in self.parameters]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> "ProcessSpace":
        """Rebuild a space from `to_json`.

        Raises:
            DataError: An entry is not a parameter.
        """
        try:
            return cls([Parameter(**_with_tuple(entry)) for entry in data])
        except (TypeError, AttributeError) as error:
            raise DataError(f"expected a list of process parameters, got {data!r}") from error


def _with_tuple(entry: Mapping[str, Any]) -> dict[str, Any]:
    choices = entry.get("choices", ())
    return {**entry, "choices": tuple(choices) if isinstance(choices, list) else choices}


def _finite(*values: Any) -> bool:
    try:
        return all(math.isfinite(v) for v in values)
    except TypeError:
        return False
