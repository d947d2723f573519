"""Conjugate gradients on many samples and load cases at once, each stopping on its own."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from physics.mechanics.problem import Operator


def conjugate_gradients(
    operator: Operator,
    precondition: Callable[[Tensor], Tensor],
    r: Float[Tensor, "batch load c *space"],
    *,
    target: Float[Tensor, "batch load"],
    max_iterations: int,
) -> tuple[Float[Tensor, "batch load c *space"], Int[Tensor, "batch load"]]:
    """Solve A x = r until sqrt(r . M r) <= target for every load of every sample.

    Samples that are done leave the batch. `r` is overwritten.

    Returns:
        x, and the iterations that each load case took (`max_iterations` where it is not done).
    """
    solution = torch.zeros_like(r)
    counts = torch.full(r.shape[:2], max_iterations, device=r.device)
    active = torch.arange(r.shape[0], device=r.device)
    x = solution
    z = precondition(r)
    rz = _dot(r, z)
    p = z.clone()
    for iteration in range(max_iterations + 1):
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
        p.mul_(_spread(beta, p)).add_(z)
    if x is not solution:
        solution[active] = x
    return solution, counts


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a.flatten(2), b.flatten(2))


def _spread(scalars: Tensor, field: Tensor) -> Tensor:
    return scalars.view(*scalars.shape, *[1] * (field.ndim - 2))
