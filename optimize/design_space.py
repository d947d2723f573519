"""The searched space: process coordinates and the latent code, both in one unit cube."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from microstructures import DataError, ProcessSpace

LATENT = "latent"
# The latent prior is N(0, I). Its outer 1 % tails on each side (|z| > 2.33) are where a decoder
# was hardly trained, so the search stays between them.
TAIL = 0.01

_PRIOR = NormalDist()

Parameters = dict[str, Any]


@dataclass(frozen=True)
class DesignSpace:
    """Process parameters joined with a latent code, as one unit cube.

    The first coordinates are the unit coordinates of `process`; the others are prior
    probabilities u of the latent numbers, z = Phi^-1(u) with u clipped to [0.01, 0.99]: equal
    volumes of the cube are equally probable under the prior z ~ N(0, I), unlike those of a box.

    Args:
        process: The process parameters.
        latent_dim: Length of the latent code, 0 for a process-only search.

    Raises:
        DataError: Nothing to search, or a process parameter is called "latent".

    >>> from microstructures import Parameter
    >>> ageing = Parameter("temperature_k", "K", 600.0, 700.0)
    >>> DesignSpace(ProcessSpace([ageing]), latent_dim=1).from_unit([0.5, 0.5])
    {'temperature_k': 650.0, 'latent': [0.0]}
    """

    process: ProcessSpace
    latent_dim: int = 0

    def __post_init__(self) -> None:
        if self.latent_dim < 0 or self.dim == 0:
            raise DataError(
                f"expected at least one process parameter or latent number, got "
                f"{len(self.process)} and {self.latent_dim}"
            )
        if LATENT in self.process.names:
            raise DataError(
                f"expected no process parameter called {LATENT!r}, the name of the code; rename it"
            )

    @property
    def dim(self) -> int:
        """Number of unit coordinates: process parameters + latent numbers."""
        return len(self.process) + self.latent_dim

    @property
    def bounds(self) -> tuple[list[float], list[float]]:
        """Lowest and highest unit coordinate that `from_unit` tells apart."""
        n = len(self.process)
        low = [0.0] * n + [TAIL] * self.latent_dim
        return low, [1.0 - u for u in low]

    def from_unit(self, u: Sequence[float]) -> Parameters:
        """Return parameters (process names, and "latent" as a list) at unit coordinates.

        Integers and choices come rounded to valid values.

        Raises:
            DataError: Not `dim` numbers in [0, 1].
        """
        u = [float(x) for x in u]
        if len(u) != self.dim or not all(0 <= x <= 1 for x in u):
            raise DataError(f"expected {self.dim} unit coordinates in [0, 1], got {u}")
        n = len(self.process)
        parameters: Parameters = dict(self.process.from_unit(u[:n]))
        if self.latent_dim:
            parameters[LATENT] = [_PRIOR.inv_cdf(min(max(x, TAIL), 1 - TAIL)) for x in u[n:]]
        return parameters

    def to_unit(self, parameters: Mapping[str, Any]) -> list[float]:
        """Return the unit coordinates of complete parameters.

        A latent number beyond the searched probabilities keeps its true coordinate.

        Raises:
            DataError: A name is unknown or missing, a value is out of bounds, or the latent code
                has another length or a number that is not finite.
        """
        process = {name: value for name, value in parameters.items() if name != LATENT}
        u = self.process.to_unit(process)
        missing = [n for n, x in zip(self.process.names, u, strict=True) if math.isnan(x)]
        if missing:
            raise DataError(
                f"expected a value for each process parameter of a design, {', '.join(missing)} "
                "is missing; give it"
            )
        return u + [_PRIOR.cdf(z) for z in self._latent(parameters)]

    def canonical(self, parameters: Mapping[str, Any]) -> Parameters:
        """Return checked parameters as plain numbers and texts in the space's order.

        Raises:
            DataError: As `to_unit`.
        """
        self.to_unit(parameters)
        plain: Parameters = {}
        for p in self.process:
            value = parameters[p.name]
            if p.scale == "choice":
                plain[p.name] = str(value)
            else:
                whole = p.scale == "integer" and float(value).is_integer()
                plain[p.name] = int(value) if whole else float(value)
        if self.latent_dim:
            plain[LATENT] = self._latent(parameters)
        return plain

    def snap(self, u: Sequence[float]) -> list[float]:
        """Return the unit coordinates of the valid point that `from_unit(u)` makes."""
        return self.to_unit(self.from_unit(u))

    def to_json(self) -> dict[str, Any]:
        """Return the space as plain data."""
        return {"process": self.process.to_json(), "latent_dim": self.latent_dim}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "DesignSpace":
        """Rebuild a space from `to_json`."""
        return cls(ProcessSpace.from_json(data["process"]), data["latent_dim"])

    def _latent(self, parameters: Mapping[str, Any]) -> list[float]:
        given = parameters.get(LATENT)
        try:
            latent = [] if given is None else [float(z) for z in given]
        except (TypeError, ValueError):
            latent = [math.nan]
        if len(latent) != self.latent_dim or not all(map(math.isfinite, latent)):
            raise DataError(
                f"expected a list of {self.latent_dim} finite numbers as {LATENT!r}, got {given!r}"
            )
        return latent
