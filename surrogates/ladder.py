"""The ladder: the cheapest evaluation of an effective matrix whose interval is narrow enough."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from microstructures import DataError
from physics.mechanics import effective_conductivity, effective_stiffness
from surrogates.fields import FieldSurrogate
from surrogates.properties import PropertySurrogate
from surrogates.quantities import Name

Level = Literal["statistical", "discrete"]
PROBED = 8  # cells that show whether a rung is worth asking about many more
FINEST_RESIDUAL = 1e-6
SINGLE_PRECISION = 1e-5  # residuals from here on are reached in float32


@dataclass(frozen=True)
class Bracketed:
    """An effective matrix with an interval for every entry, and of what kind that is.

    Level "discrete": guaranteed for the staggered scheme's exact answer, in the Loewner order (so
    for the diagonal; other entries follow from quadratic forms). Level "statistical": calibrated
    on cells like those of training. `trusted` says of which cells the rung claims to know
    anything; a statistical rung does not, beyond its training set. `distance` is that from the
    training set, where the rung has one.
    """

    value: Float[Tensor, "batch n n"]
    lower: Float[Tensor, "batch n n"]
    upper: Float[Tensor, "batch n n"]
    trusted: Tensor
    level: Level
    distance: Float[Tensor, " batch"] | None = None


@runtime_checkable
class Rung(Protocol):
    """One way to evaluate an effective matrix."""

    @property
    def name(self) -> str:
        """What answers say they come from."""
        ...

    @property
    def level(self) -> Level:
        """The kind of its intervals."""
        ...

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return whether cells of this shape can be evaluated."""
        ...

    def evaluate(
        self, phases: Shaped[Tensor, "batch *dims"], materials: Sequence, tolerance: float
    ) -> Bracketed:
        """Evaluate cells; `tolerance` is a hint of the relative interval that is wanted."""
        ...


@dataclass(frozen=True)
class PropertyRung:
    """A property surrogate; cells unlike its training set (distance above 1) are not trusted."""

    model: PropertySurrogate
    name: str = "property net"
    level: Level = "statistical"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return whether the net takes this shape."""
        return _accepted(self.model.check_shape, shape)

    def evaluate(
        self, phases: Shaped[Tensor, "batch *dims"], materials: Sequence, tolerance: float
    ) -> Bracketed:
        """Return the surrogate's calibrated interval."""
        found = self.model.predict(phases, materials)
        trusted = found.distance <= 1
        return Bracketed(
            found.value, found.lower, found.upper, trusted, "statistical", found.distance
        )


@dataclass(frozen=True)
class FieldRung:
    """A field surrogate with its certificate, which holds near and far from the training set."""

    model: FieldSurrogate
    name: str = "field net and certificate"
    level: Level = "discrete"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return whether the net takes this shape."""
        return _accepted(self.model.check_shape, shape)

    def evaluate(
        self, phases: Shaped[Tensor, "batch *dims"], materials: Sequence, tolerance: float
    ) -> Bracketed:
        """Return the certificate's bounds."""
        found = self.model.predict(phases, materials)
        assert found.lower is not None
        assert found.upper is not None
        sure = torch.ones(len(phases), dtype=torch.bool)
        return Bracketed(
            found.effective, found.lower, found.upper, sure, "discrete", found.distance
        )


@dataclass(frozen=True)
class SolverRung:
    """The solver, its residual tightened until the interval is narrow enough."""

    quantity: Name = "stiffness"
    name: str = "solver"
    level: Level = "discrete"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Return True: the solver takes every shape."""
        return True

    def evaluate(
        self, phases: Shaped[Tensor, "batch *dims"], materials: Sequence, tolerance: float
    ) -> Bracketed:
        """Return the solver's bounds at a residual that makes all narrow enough."""
        solve = effective_stiffness if self.quantity == "stiffness" else effective_conductivity
        # The width falls as the square of the residual.
        residual = max(math.sqrt(tolerance), FINEST_RESIDUAL)
        while True:
            precision = torch.float32 if residual >= SINGLE_PRECISION else torch.float64
            found = solve(phases, materials, tolerance=residual, dtype=precision)
            # A cell with pores has no lower bound but 0: its residual has to do.
            lower = torch.where(found.one_sided.view(-1, 1, 1), found.value, found.lower)
            narrow = bool((relative_width(lower, found.upper) <= tolerance).all())
            if narrow or residual <= FINEST_RESIDUAL:
                break
            residual = max(residual / 3, FINEST_RESIDUAL)
        sure = torch.ones(len(phases), dtype=torch.bool)
        return Bracketed((lower + found.upper) / 2, lower, found.upper, sure, "discrete")


@dataclass(frozen=True)
class Evaluation:
    """What the ladder found for one cell, and what it cost.

    `rung` is the name of the rung that answered; `cpu_ms` is this cell's share of the process
    time of all rungs that were asked about it; `distance` is the answering rung's distance from
    its training set, None for the solver.
    """

    value: Float[Tensor, "n n"]
    lower: Float[Tensor, "n n"]
    upper: Float[Tensor, "n n"]
    level: Level
    rung: str
    cpu_ms: float
    distance: float | None = None


def evaluate(
    phases: Shaped[Tensor, "batch *dims"],
    materials: Sequence,
    rungs: Sequence[Rung],
    *,
    tolerance: float,
    guaranteed: bool = False,
) -> list[Evaluation]:
    """Climb until every cell's interval is within the tolerance.

    Of many cells, a rung that answers none of the first few is not asked about the others.

    Args:
        phases: Labels `(batch, *space)` or fractions `(batch, phase, *space)`.
        materials: One per phase.
        rungs: From the cheapest to the dearest; the last answers in any case.
        tolerance: Widest interval of the diagonal's entries, over its upper end.
        guaranteed: Skip rungs whose intervals are only calibrated.

    Raises:
        DataError: No rung is left, the last one does not take this shape, or phases or materials
            do not fit.
    """
    if not 0 < tolerance < 1:
        raise DataError(f"expected a tolerance between 0 and 1, got {tolerance}")
    usable = [r for r in rungs if not guaranteed or r.level == "discrete"]
    shape = tuple(phases.shape[2:] if phases.is_floating_point() else phases.shape[1:])
    if not usable or not usable[-1].accepts(shape):
        raise DataError(
            f"expected a last rung that takes cells of shape {shape}, got "
            f"{[r.name for r in rungs]}; end the ladder with the solver"
        )
    answers: dict[int, Evaluation] = {}
    open_cells, spent = torch.arange(len(phases)), torch.zeros(len(phases))
    for rung in (r for r in usable if r.accepts(shape)):
        last = rung is usable[-1]
        for part in _asked(open_cells, last):
            start = time.process_time()
            found = rung.evaluate(phases[part], materials, tolerance)
            spent[part] += 1000 * (time.process_time() - start) / len(part)
            narrow = (relative_width(found.lower, found.upper) <= tolerance) & found.trusted
            done = torch.nonzero(narrow | last).flatten().tolist()
            answers |= {
                int(part[k]): _evaluation(found, k, rung, float(spent[part[k]])) for k in done
            }
            if not done:
                break
        answered = torch.tensor([int(cell) in answers for cell in open_cells])
        open_cells = open_cells[~answered]
        if not len(open_cells):
            break
    return [answers[cell] for cell in range(len(phases))]


def _asked(cells: Tensor, last: bool) -> list[Tensor]:
    """Return the cells to ask a rung about: all, or a few first that show whether it pays."""
    return [cells] if last or len(cells) < 4 * PROBED else [cells[:PROBED], cells[PROBED:]]


def _evaluation(found: Bracketed, k: int, rung: Rung, cpu_ms: float) -> Evaluation:
    return Evaluation(
        value=found.value[k],
        lower=found.lower[k],
        upper=found.upper[k],
        level=found.level,
        rung=rung.name,
        cpu_ms=cpu_ms,
        distance=None if found.distance is None else float(found.distance[k]),
    )


def relative_width(
    lower: Float[Tensor, "batch n n"], upper: Float[Tensor, "batch n n"]
) -> Float[Tensor, " batch"]:
    """Return the widest interval of the diagonal, relative to its upper end."""
    low, high = (m.diagonal(dim1=1, dim2=2) for m in (lower, upper))
    return ((high - low) / high.clamp_min(1e-300)).amax(1)


def _accepted(check, shape: Sequence[int]) -> bool:
    try:
        check(shape)
    except DataError:
        return False
    return True
