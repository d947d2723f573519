"""How densely the training data covers the process window, and process points beyond it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from microstructures import DataError, Parameter, ProcessSpace
from microstructures.seeds import generator_for
from microstructures.structure import ProcessValue

MOST_POINTS = 384  # enough for a density good to a tenth in three parameters
FURTHEST = 0.5  # in widths of the window: process features repeat after two widths
Process = Mapping[str, ProcessValue]


@dataclass(frozen=True)
class TrainingDensity:
    """Kernel density of the training data over the process window.

    Gaussian kernels in unit coordinates (Scott 1992 bandwidth) for numbers, equality for
    choices; a value unknown in the data or in the question takes no part. The density is divided
    by that of evenly spread data, so that the window's faces and corners do not look empty
    because kernels reach beyond them.

    Args:
        points: Unit coordinates of training samples, NaN where unknown.
        bandwidth: Kernel width per parameter; 0 marks a choice.
        typical: Mean of the raw density over the training samples.
    """

    points: Float[Tensor, "n parameter"]
    bandwidth: Float[Tensor, " parameter"]
    typical: float

    @classmethod
    def fit(cls, units: Float[Tensor, "n parameter"], space: ProcessSpace) -> "TrainingDensity":
        """Return the density of training samples at unit coordinates of a space."""
        order = torch.randperm(len(units), generator=generator_for("training density"))
        points = units[order[:MOST_POINTS]].double().round(decimals=4)
        numbers = [p.scale != "choice" for p in space]
        scott = len(points) ** (-1 / (sum(numbers) + 4))
        known = ~points.isnan()
        centred = (points - points.nanmean(0)).nan_to_num(0.0)
        spread = (centred.square().sum(0) / known.sum(0).clamp_min(1)).sqrt()
        width = (spread * scott).clamp_min(0.02).round(decimals=4)
        bandwidth = torch.where(torch.tensor(numbers, dtype=torch.bool), width, 0.0)
        raw = cls(points, bandwidth, 1.0)
        return cls(points, bandwidth, float(raw._raw(points).mean()))

    def __call__(self, units: Float[Tensor, "batch parameter"]) -> Float[Tensor, " batch"]:
        """Return the relative density: 1 where data is as dense as typical, 0 far from all."""
        return (self._raw(units.double()) / self.typical).clamp(0, 1)

    def marginal(self, parameters: Sequence[int]) -> "TrainingDensity":
        """Return the density over some parameters alone, by their places, all others summed up."""
        columns = list(parameters)
        raw = TrainingDensity(self.points[:, columns], self.bandwidth[columns], 1.0)
        return replace(raw, typical=float(raw._raw(raw.points).mean()))

    def to_json(self) -> dict[str, Any]:
        """Return plain data; unknown coordinates as None."""
        rows = [[None if math.isnan(u) else u for u in row] for row in self.points.tolist()]
        return {"points": rows, "bandwidth": self.bandwidth.tolist(), "typical": self.typical}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "TrainingDensity":
        """Rebuild from `to_json`."""
        rows = [[math.nan if u is None else u for u in row] for row in data["points"]]
        width = torch.tensor(data["bandwidth"], dtype=torch.float64)
        points = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(width))
        return cls(points, width, float(data["typical"]))

    def _raw(self, units: Tensor) -> Tensor:
        gap = units[:, None, :] - self.points
        number = self.bandwidth > 0
        width = torch.where(number, self.bandwidth, 1.0)
        kernel = (-0.5 * (gap / width).square()).exp() / self._inside(units)[:, None, :]
        equal = (gap.abs() < 1e-3).to(kernel.dtype)
        factor = torch.where(number, kernel, equal)
        return torch.where(gap.isnan(), 1.0, factor).prod(2).mean(1)

    def _inside(self, units: Tensor) -> Tensor:
        """Kernel mass that falls inside the window, at each coordinate."""
        width = torch.where(self.bandwidth > 0, self.bandwidth, 1.0)
        u = units.clamp(0, 1)
        normal = torch.special.ndtr
        return (normal((1 - u) / width) - normal(-u / width)) * width * math.sqrt(2 * math.pi)


def units_beyond(
    space: ProcessSpace, processes: Sequence[Process]
) -> tuple[Float[Tensor, "batch parameter"], list[bool]]:
    """Return unit coordinates that may lie outside [0, 1], and which points do.

    Limits: numbers up to half a window's width beyond its bounds; a choice that training did not
    know cannot be extrapolated to.

    Raises:
        DataError: A name is unknown, or a value is further away, no number, or no choice.
    """
    rows, beyond = [], []
    for process in processes:
        outside = {p.name: _coordinate(p, process.get(p.name)) for p in space}
        inside = {name: v for name, v in process.items() if outside.get(name) is None}
        units = space.to_unit(inside)
        rows.append([u if x is None else x for u, x in zip(units, outside.values(), strict=True)])
        beyond.append(any(x is not None for x in outside.values()))
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(space)), beyond


def _coordinate(parameter: Parameter, value: ProcessValue) -> float | None:
    """Return the unit coordinate of a number outside the bounds; None for anything else."""
    low, high = parameter.low, parameter.high
    if low is None or high is None or isinstance(value, (str, bool)) or value is None:
        return None
    if not math.isfinite(value) or low <= value <= high:
        return None
    if parameter.scale == "log":
        u = math.log(value / low) / math.log(high / low) if value > 0 else -math.inf
    else:
        u = (value - low) / (high - low)
    if not -FURTHEST <= u <= 1 + FURTHEST:
        raise DataError(
            f"expected {parameter.name} within half a window's width of {low:g} to {high:g}, got "
            f"{value:g}; so far out the model says nothing"
        )
    return u
