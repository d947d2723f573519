"""Conjugate gradients on many samples and load cases at once, each stopping on its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics.mechanics.problem import Operator

LARGE = 2**16
"""Values of one field above which dot products are taken one by one, without their terms' array."""

CHECK_EVERY = 8
"""Iterations after which the block method measures the residual in any case."""

DEPENDENT = 500.0
"""Machine precisions below which an eigenvalue of scaled search directions counts as zero."""


@dataclass(frozen=True)
class History:
    """Squared residual norms of the open samples, and their targets, as iterations go on."""

    squares: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def worst(self) -> list[float]:
        """Return the largest residual / target of each record."""
        return [float((s.clamp_min(0.0).sqrt() / t).max()) for s, t in self.squares]


def conjugate_gradients(
    operator: Operator,
    precondition: Callable[[Tensor], Tensor],
    r: Float[Tensor, "batch load c *space"],
    *,
    target: Float[Tensor, "batch load"],
    max_iterations: int,
    z: Float[Tensor, "batch load c *space"] | None = None,
    history: History | None = None,
) -> tuple[Float[Tensor, "batch load c *space"], Int[Tensor, "batch load"]]:
    """Solve A x = r until sqrt(r . M r) <= target for every load of every sample.

    Samples that are done leave the batch. `r` is overwritten; `z` is `precondition(r)`, where it
    is known; `history` takes every residual.

    Returns:
        x, and the iterations that each load case took (`max_iterations` where it is not done).
    """
    solution = torch.zeros_like(r)
    counts = torch.full(r.shape[:2], max_iterations, device=r.device)
    active = torch.arange(r.shape[0], device=r.device)
    x = solution
    z = precondition(r) if z is None else z
    rz = _dot(r, z)
    p = z.clone()
    for iteration in range(max_iterations + 1):
        if history is not None:
            history.squares.append((rz, target))
        done = rz <= target**2
        counts[active] = torch.where(done, counts[active].clamp_max(iteration), counts[active])
        finished = done.all(1)
        if iteration == max_iterations or bool(finished.all()):
            break
        if bool(finished.any()):
            if x is not solution:
                solution[active] = x
            keep = ~finished
            active = active[keep]
            x = solution[active]
            r, p, rz, target = r[keep], p[keep], rz[keep], target[keep]
            operator = operator.select(keep)
        q = operator(p)
        pq = _dot(p, q)
        # A load case that is done rests: further steps would only feed on round-off.
        alpha = torch.where((pq > 0.0) & (rz > target**2), rz / pq, 0.0)
        x.addcmul_(p, _spread(alpha, p))
        r.addcmul_(q, _spread(-alpha, p))
        z = precondition(r)
        rz, rz_before = _dot(r, z), rz
        beta = torch.where(rz_before > 0.0, rz / rz_before, 0.0)
        torch.addcmul(z, p, _spread(beta, p), out=p)
    if x is not solution:
        solution[active] = x
    return solution, counts


def block_conjugate_gradients(
    operator: Operator,
    precondition: Operator,
    norm: Callable[[Tensor], Float[Tensor, "batch load"]],
    r: Float[Tensor, "batch load c *space"],
    *,
    target: Float[Tensor, "batch load"],
    max_iterations: int,
    history: History | None = None,
) -> tuple[Float[Tensor, "batch load c *space"], Int[Tensor, "batch load"]]:
    """Solve A x = r until norm(r) <= target, all loads of a sample in one Krylov space.

    Each step minimises the energy of every load over the search directions of all of them
    (O'Leary 1980, doi:10.1016/0024-3795(80)90247-5), so that what is slow in the operator is
    learnt once; dependent loads share their directions. Directions are made conjugate to the last
    ones explicitly, which forgives a preconditioner in single precision. The norm is measured when
    r . M r tells that it may be small enough, and every few iterations.

    Returns:
        x, and the iterations after which each load was measured to be done (`max_iterations`
        where it was not).
    """
    solution = torch.zeros_like(r)
    counts = torch.full(r.shape[:2], max_iterations, device=r.device)
    active = torch.arange(r.shape[0], device=r.device)
    x = solution
    z = precondition(r)
    p = z.clone()
    zr = _products(z, r)
    ratio = torch.zeros_like(target)
    for iteration in range(max_iterations + 1):
        roots = torch.diagonal(zr, dim1=1, dim2=2).clamp_min(0.0).sqrt()
        likely = bool((ratio * roots <= target).all(1).any())
        if likely or iteration % CHECK_EVERY == 0 or iteration == max_iterations:
            size = norm(r)
            ratio = size / roots.clamp_min(torch.finfo(r.dtype).tiny)
            if history is not None:
                history.squares.append((size**2, target))
            done = size <= target
            counts[active] = torch.where(done, counts[active].clamp_max(iteration), counts[active])
            finished = done.all(1)
            if iteration == max_iterations or bool(finished.all()):
                break
            if bool(finished.any()):
                if x is not solution:
                    solution[active] = x
                keep = ~finished
                active = active[keep]
                x = solution[active]
                r, p, zr, ratio, target = (v[keep] for v in (r, p, zr, ratio, target))
                operator, precondition = operator.select(keep), precondition.select(keep)
        q = operator(p)
        pq = _products(p, q)
        # P . R is Z . R: the directions before are conjugate to all that is left.
        step = _solved(pq, zr)
        _add_combined(x, p, step)
        _add_combined(r, q, -step)
        z = precondition(r)
        zr = _products(z, r)
        _add_combined(z, p, -_solved(pq, _products(q, z)))
        p.copy_(z)
    if x is not solution:
        solution[active] = x
    return solution, counts


def _products(
    a: Float[Tensor, "batch load *field"], b: Float[Tensor, "batch load *field"]
) -> Float[Tensor, "batch load load"]:
    """Return the inner products of all loads of one field with those of another."""
    return a.flatten(2) @ b.flatten(2).mT


def _add_combined(x: Tensor, p: Tensor, weights: Float[Tensor, "batch load other"]) -> None:
    """Add to each load of x the directions p, weighted by its column."""
    x.flatten(2).baddbmm_(weights.mT, p.flatten(2))


def _solved(
    matrix: Float[Tensor, "batch load load"], right: Float[Tensor, "batch load other"]
) -> Float[Tensor, "batch load other"]:
    """Return a solution of small semi-definite systems, without their dependent directions."""
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2)
    scale = torch.where(diagonal > 0.0, diagonal.rsqrt(), 0.0).unsqueeze(2)
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.mT) * scale * scale.mT)
    floor = DEPENDENT * torch.finfo(matrix.dtype).eps * values[:, -1:]
    inverse = torch.where(values > floor.clamp_min(0.0), 1.0 / values, 0.0)
    return scale * (vectors @ (inverse.unsqueeze(2) * (vectors.mT @ (scale * right))))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a[0, 0].numel() < LARGE:
        return torch.linalg.vecdot(a.flatten(2), b.flatten(2))
    pairs = zip(a.flatten(2).flatten(0, 1), b.flatten(2).flatten(0, 1), strict=True)
    return torch.stack([torch.dot(x, y) for x, y in pairs]).view(a.shape[:2])


def _spread(scalars: Tensor, field: Tensor) -> Tensor:
    return scalars.view(*scalars.shape, *[1] * (field.ndim - 2))
