"""Where in its bracket the effective stiffness lies, learnt on training cells."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from physics.mechanics.certificates import certify_cells
from surrogates.iterated import iterated
from surrogates.labels import LabelledCells
from surrogates.reference import ReferencedCells

CELLS, CELLS_AT_ONCE = 192, 16
ITERATIONS = (0, 1, 3)
"""Solver iterations after the net at which places are taken: none, and those of a refinement."""

EDGE = 0.02  # shares nearer than this to an end of the bracket count as this near


@dataclass(frozen=True)
class BracketPlace:
    """Share of the way from lower to upper bound, of logit level + slope ln c + drift ln(1 + k).

    The energy of a trial strain is above the effective stiffness by its squared distance to the
    solution, that of its balanced stress below by its own. How the two distances compare depends
    above all on the contrast c (of the shear moduli): of little contrast, the balanced stress is
    the worse by far; of much, the strain. The solver's k iterations from the net mend the strain
    first. So the middle of the bracket, which is what the default gives, is a poor estimate
    within good bounds.
    """

    level: float = 0.0
    slope: float = 0.0
    drift: float = 0.0

    def estimate(
        self,
        lower: Float[Tensor, "batch n n"],
        upper: Float[Tensor, "batch n n"],
        contrast: Float[Tensor, " batch"],
        one_sided: Bool[Tensor, " batch"],
        iterations: int = 0,
    ) -> Float[Tensor, "batch n n"]:
        """Return matrices between bounds; the upper bound where there is no lower one but 0."""
        level = self.level + self.drift * math.log1p(iterations)
        share = torch.sigmoid(level + self.slope * contrast.double().log())
        share = torch.where(one_sided, 1.0, share).view(-1, 1, 1)
        return torch.lerp(lower, upper, share.to(lower))


MIDDLE = BracketPlace()


@torch.no_grad()
def fitted_place(
    start: Callable[[ReferencedCells], Float[Tensor, "batch n dim *space"]], labels: LabelledCells
) -> BracketPlace:
    """Fit level, slope and drift to the first labelled cells, by least squares of the logit.

    Args:
        start: Displacements of the unit loads: a net.
        labels: Training cells.
    """
    entries, logits = [], []
    for rows in torch.arange(min(CELLS, len(labels))).split(CELLS_AT_ONCE):
        cells = labels.cells(rows, labels.phases[rows])
        unit = start(cells)
        problem = labels.quantity.problem(labels.fields(rows, labels.phases[rows]).double())
        for iterations in ITERATIONS:
            moved = iterated(problem, unit, iterations) if iterations else unit
            bounds = certify_cells(problem, moved)
            share = place_between(labels.effective[rows], bounds.lower, bounds.upper)
            logits.append(share.clamp(EDGE, 1 - EDGE).logit())
            log = shear_contrast(cells.moduli).double().log()
            taken = torch.full_like(log, math.log1p(iterations))
            entries.append(torch.stack([torch.ones_like(log), log, taken], 1))
    fit = torch.linalg.lstsq(torch.cat(entries), torch.cat(logits)[:, None])
    return BracketPlace(*fit.solution[:, 0].tolist())


def shear_contrast(moduli: Float[Tensor, "batch 2 *space"]) -> Float[Tensor, " batch"]:
    """Return the stiffest over the softest voxel's shear modulus; infinite with pores."""
    shear = moduli[:, 1].flatten(1)
    return shear.amax(1) / shear.amin(1)


def place_between(
    value: Float[Tensor, "batch n n"],
    lower: Float[Tensor, "batch n n"],
    upper: Float[Tensor, "batch n n"],
) -> Float[Tensor, " batch"]:
    """Return tr(C^-1 (C - L)) / tr(C^-1 (U - L)): 0 at the lower bound, 1 at the upper."""
    inverse = torch.linalg.inv(value.double())
    gaps = (value.double() - lower, upper - lower)
    above, whole = ((inverse @ gap).diagonal(dim1=1, dim2=2).sum(1) for gap in gaps)
    return (above / whole.clamp_min(1e-300)).clamp(0, 1)
