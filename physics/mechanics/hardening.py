"""Yield curves of J2 plasticity, elastic-plastic phases, and the scalar return to the curve."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from microstructures import DataError
from physics.mechanics.materials import IsotropicElastic

MAX_RETURN_ITERATIONS = 200


@runtime_checkable
class YieldCurve(Protocol):
    """A flow stress that grows with the equivalent plastic strain p, concave or straight."""

    def flow_stress(self, p: Tensor) -> Tensor:
        """Return sigma_y(p) in GPa."""
        ...

    def slope(self, p: Tensor) -> Tensor:
        """Return d sigma_y / dp in GPa."""
        ...

    def energy(self, p: Tensor) -> Tensor:
        """Return the integral of sigma_y from 0 to p, in GPa."""
        ...


class _Settings(BaseModel):
    """Frozen settings whose faults are raised as `DataError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **settings: object) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as fault:
            first = fault.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            raise DataError(
                f"{type(self).__name__}: {name}: {first['msg']}, got {first['input']!r}; give "
                "settings within the bounds of its documentation"
            ) from None


class LinearHardening(_Settings):
    """Linear isotropic hardening sigma_y(p) = sigma_0 + H p; H = 0 is perfectly plastic.

    In a uniaxial test of a single phase the tangent modulus beyond yield is E H / (E + H).

    Example:
        >>> LinearHardening(yield_stress_gpa=0.3, modulus_gpa=2.0)
    """

    yield_stress_gpa: float = Field(gt=0.0, description="initial yield stress sigma_0 in GPa")
    modulus_gpa: float = Field(default=0.0, ge=0.0, description="plastic modulus H in GPa")

    def flow_stress(self, p: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return sigma_0 + H p in GPa."""
        return self.yield_stress_gpa + self.modulus_gpa * p

    def slope(self, p: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return H in GPa."""
        return torch.full_like(p, self.modulus_gpa)

    def energy(self, p: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return sigma_0 p + H p^2 / 2 in GPa."""
        return p * (self.yield_stress_gpa + 0.5 * self.modulus_gpa * p)


class PowerHardening(_Settings):
    """Power-law isotropic hardening sigma_y(p) = sigma_0 + K p^m, 0 < m <= 1 (Ludwik 1909).

    The slope of p^m is infinite at p = 0. Below p_0 = `smooth_below` a parabola replaces it that
    starts at 0 and meets value and slope at p_0: p_0^m ((2 - m) t - (1 - m) t^2), t = p / p_0.
    From p_0 on the law is exact.

    Example:
        >>> PowerHardening(yield_stress_gpa=0.3, strength_gpa=0.5, exponent=0.2)
    """

    yield_stress_gpa: float = Field(gt=0.0, description="initial yield stress sigma_0 in GPa")
    strength_gpa: float = Field(ge=0.0, description="hardening coefficient K in GPa")
    exponent: float = Field(gt=0.0, le=1.0, description="hardening exponent m")
    smooth_below: float = Field(
        default=1e-6, ge=1e-12, le=1e-2, description="equivalent plastic strain p_0"
    )

    def flow_stress(self, p: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return sigma_0 + K p^m in GPa."""
        m, t = self.exponent, p / self.smooth_below
        start = self.smooth_below**m * t * ((2.0 - m) - (1.0 - m) * t)
        power = torch.where(t < 1.0, start, p.clamp_min(self.smooth_below) ** m)
        return self.yield_stress_gpa + self.strength_gpa * power

    def slope(self, p: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return K m p^(m - 1) in GPa."""
        m, t = self.exponent, p / self.smooth_below
        start = self.smooth_below ** (m - 1.0) * ((2.0 - m) - 2.0 * (1.0 - m) * t)
        power = m * p.clamp_min(self.smooth_below) ** (m - 1.0)
        return self.strength_gpa * torch.where(t < 1.0, start, power)

    def energy(self, p: Float[Tensor, "*points"]) -> Float[Tensor, "*points"]:
        """Return the integral of the flow stress from 0 to p, in GPa."""
        m, t = self.exponent, p / self.smooth_below
        start = t**2 * (0.5 * (2.0 - m) - (1.0 - m) * t / 3.0)
        whole = 0.5 * (2.0 - m) - (1.0 - m) / 3.0
        power = whole + (t.clamp_min(1.0) ** (m + 1.0) - 1.0) / (m + 1.0)
        unit = self.strength_gpa * self.smooth_below ** (m + 1.0)
        return self.yield_stress_gpa * p + unit * torch.where(t < 1.0, start, power)


class ElasticPlastic(_Settings):
    """An isotropic phase that yields by von Mises' criterion; without `hardening` it never does.

    Example:
        >>> steel = IsotropicElastic(youngs_modulus_gpa=210.0, poisson_ratio=0.3)
        >>> ElasticPlastic(elastic=steel, hardening=LinearHardening(yield_stress_gpa=0.3))
    """

    elastic: IsotropicElastic
    hardening: LinearHardening | PowerHardening | None = None

    @model_validator(mode="after")
    def _no_yielding_pore(self) -> "ElasticPlastic":
        if self.hardening is not None and self.elastic.shear <= 0.0:
            raise ValueError("a pore (youngs_modulus_gpa = 0) has no hardening")
        return self


def plastic_increment(
    law: YieldCurve,
    trial: Float[Tensor, " points"],
    p: Float[Tensor, " points"],
    shear: Float[Tensor, " points"],
) -> Float[Tensor, " points"]:
    """Return dp > 0 with trial - 3 G dp = sigma_y(p + dp), for points beyond the yield stress.

    Newton's iteration within a bracket that it narrows; a step that leaves the bracket is replaced
    by its middle. On a concave flow stress Newton's steps from dp = 0 never overshoot, on a
    straight one the first is exact.
    """
    stiffness = 3.0 * shear
    low = torch.zeros_like(trial)
    high = (trial - law.flow_stress(p)) / stiffness
    small = 2.0 * torch.finfo(trial.dtype).eps * (trial / stiffness)
    dp = low
    for _ in range(MAX_RETURN_ITERATIONS):
        excess = trial - stiffness * dp - law.flow_stress(p + dp)
        low = torch.where(excess >= 0.0, dp, low)
        high = torch.where(excess <= 0.0, dp, high)
        newton = dp + excess / (stiffness + law.slope(p + dp))
        inside = (newton >= low) & (newton <= high)
        moved = torch.where(inside, newton, 0.5 * (low + high)) - dp
        dp = dp + moved
        if bool((moved.abs() <= small).all()):
            break
    return dp
