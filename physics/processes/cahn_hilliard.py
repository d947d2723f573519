"""The Cahn-Hilliard equation in scaled form, with or without elastic misfit, and its energy."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# Stabilisation of the exponential step: at least max|f''|/2 = 1 keeps the energy from rising.
STABILISATION = 2.0
FIRST_STEP, LAST_STEP, STEPS_PER_DOUBLING = 0.125, 0.5, 40
# Energy per area of a flat interface, psi = tanh(x / sqrt 2).
INTERFACE_ENERGY = 2 * math.sqrt(2) / 3
# Samples integrated together on a CPU: their fields should stay in the cache.
VOXELS_AT_ONCE = 2**16


def cahn_hilliard(
    start: Float[Tensor, "batch *space"],
    *,
    spacing: Float[Tensor, " batch"],
    end: Float[Tensor, " batch"],
    step: float | None = None,
    order: Literal[1, 2] = 2,
    misfit: Float[Tensor, "batch *space"] | None = None,
) -> Float[Tensor, "batch *space"]:
    """Integrate d psi/dt = lap(psi^3 - psi - lap psi + beta psi) on a periodic grid.

    Exponential time differencing (ETDRK2, Cox and Matthews 2002, doi:10.1006/jcph.2002.6995) of
    the stabilised linear part L = -k^4 - (S + beta) k^2. Mass is conserved to round-off and the
    energy does not rise. Each sample follows the same schedule of steps in its own time (doubling
    from 1/8 to 1/2 as coarsening slows), so its result does not depend on its company in the
    batch.

    Args:
        start: Initial psi.
        spacing: Voxel edge in units of the interface length, one per sample.
        end: Final time, one per sample.
        step: Constant step instead of the schedule (for studies of convergence).
        order: 2, or 1 for the exponential Euler step (ETD1) at half the cost and with an error
            of first order in the step.
        misfit: beta of each wave vector, on the grid of `torch.fft.fftn` and even in k; None
            for none. It depends on the direction of k alone in Khachaturyan's theory.
    """
    # Samples of like duration go together, the longest first.
    longest_first = torch.argsort(end, descending=True, stable=True)
    at_once = VOXELS_AT_ONCE // start[0].numel() if start.device.type == "cpu" else len(start)
    done = torch.empty_like(start)
    for group in longest_first.split(max(1, at_once)):
        beta = None if misfit is None else misfit[group]
        done[group] = _integrate(start[group], spacing[group], end[group], step, order, beta)
    return done


def free_energy(
    psi: Float[Tensor, "batch *space"],
    *,
    spacing: Float[Tensor, " batch"],
    misfit: Float[Tensor, "batch *space"] | None = None,
) -> Float[Tensor, " batch"]:
    """Return the mean of (1 - psi^2)^2/4 + |grad psi|^2/2 + psi beta psi/2.

    Cahn-Hilliard flow lowers it. The misfit part leaves out the mean of psi, which is conserved.
    """
    axes = tuple(range(1, psi.ndim))
    symbol = squared_wave_numbers(psi.shape[1:], spacing, real=False)
    if misfit is not None:
        symbol = symbol + misfit
        symbol[(slice(None), *[0] * len(axes))] = 0
    quadratic = (symbol * torch.fft.fftn(psi, dim=axes).abs().square()).mean(axes) / psi[0].numel()
    return ((1 - psi.square()).square() / 4).mean(axes) + quadratic / 2


def domain_length(
    psi: Float[Tensor, "batch *space"], *, spacing: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Return volume over interface area, in units of the interface length.

    The area is the free energy over that of a flat interface. Unlike the first moment of the
    structure factor, which the k^-(d+1) tail of sharp interfaces makes drift with log L, it
    shows the exponent of late coarsening.
    """
    return INTERFACE_ENERGY / free_energy(psi, spacing=spacing)


def squared_wave_numbers(
    shape: Sequence[int], spacing: Float[Tensor, " batch"], *, real: bool = True
) -> Float[Tensor, "batch *frequency"]:
    """Return |k|^2 on the grid of `rfftn` (or `fftn`), one grid for each voxel edge."""
    total = torch.zeros((), dtype=torch.float64, device=spacing.device)
    for axis, size in enumerate(shape):
        last = real and axis == len(shape) - 1
        frequencies = torch.fft.rfftfreq if last else torch.fft.fftfreq
        k = 2 * math.pi * frequencies(size, dtype=torch.float64, device=spacing.device)
        total = total.unsqueeze(-1) + k.square()
    return total / spacing.double().view(-1, *[1] * len(shape)).square()


def _integrate(
    psi: Tensor,
    spacing: Tensor,
    end: Tensor,
    step: float | None,
    order: int,
    misfit: Tensor | None,
) -> Tensor:
    """Integrate samples in order of falling end time; finished ones leave from the tail."""
    axes = tuple(range(1, psi.ndim))
    k2 = squared_wave_numbers(psi.shape[1:], spacing)
    beta = torch.zeros_like(k2) if misfit is None else misfit[..., : k2.shape[-1]]
    spectrum, done = torch.fft.rfftn(psi, dim=axes), torch.empty_like(psi)
    time, h, steps_at_h = 0.0, step or FIRST_STEP, 0
    coefficients = _etd_coefficients(k2, beta, h, psi.dtype)
    while len(psi):
        stays = int((end[: len(psi)] > time + h).sum())
        if stays < len(psi):
            last = (end[stays : len(psi)] - time).view(-1, *[1] * len(axes))
            tail = _etd_coefficients(k2[stays : len(psi)], beta[stays : len(psi)], last, psi.dtype)
            done[stays : len(psi)] = _step(psi[stays:], spectrum[stays:], tail, order)[0]
            psi, spectrum = psi[:stays], spectrum[:stays]
            coefficients = tuple(c[:stays] for c in coefficients)
            if not stays:
                break
        psi, spectrum = _step(psi, spectrum, coefficients, order)
        time, steps_at_h = time + h, steps_at_h + 1
        if step is None and h < LAST_STEP and steps_at_h == STEPS_PER_DOUBLING:
            h, steps_at_h = 2 * h, 0
            coefficients = _etd_coefficients(k2[:stays], beta[:stays], h, psi.dtype)
    return done


def _etd_coefficients(
    k2: Tensor, beta: Tensor, h: float | Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return e^z, -k^2 h phi_1(z) and -k^2 h phi_2(z) with z = -h (k^4 + (S + beta) k^2).

    They are real, but complex as stored: products of like types are the faster ones.
    """
    z = -h * k2 * (k2 + STABILISATION + beta)
    safe = torch.where(z < -0.02, z, -1.0)
    phi1 = torch.where(z < -0.02, torch.expm1(safe) / safe, 1 + z / 2 + z**2 / 6 + z**3 / 24)
    phi2 = torch.where(
        z < -0.02, (torch.expm1(safe) - safe) / safe**2, 0.5 + z / 6 + z**2 / 24 + z**3 / 120
    )
    real = (torch.exp(z), -k2 * h * phi1, -k2 * h * phi2)
    decay, first, second = (c.to(dtype.to_complex()) for c in real)
    return decay, first, second


def _step(
    psi: Tensor, spectrum: Tensor, coefficients: tuple[Tensor, ...], order: int
) -> tuple[Tensor, Tensor]:
    """Return psi and its spectrum one step of ETD1 or ETDRK2 later."""
    decay, first, second = coefficients
    axes, shape = tuple(range(1, psi.ndim)), psi.shape[1:]
    force = torch.fft.rfftn(_explicit_force(psi), dim=axes)
    spectrum = (decay * spectrum).addcmul_(first, force)
    trial = torch.fft.irfftn(spectrum, s=shape, dim=axes)
    if order == 1:
        return trial, spectrum
    change = torch.fft.rfftn(_explicit_force(trial), dim=axes).sub_(force)
    spectrum = spectrum.addcmul_(second, change)
    return torch.fft.irfftn(spectrum, s=shape, dim=axes), spectrum


def _explicit_force(psi: Tensor) -> Tensor:
    return psi.square().sub_(1 + STABILISATION).mul_(psi)
