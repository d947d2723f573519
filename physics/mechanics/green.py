"""Green operators of a homogeneous reference on the staggered grid: the CG's preconditioner.

The reference has shear modulus (or conductivity) 1: preconditioned CG and the equilibrated
stress do not depend on its scale, only on the ratio bulk/shear, so that one cached symbol serves
every pair of phases with the same Poisson's ratio.
"""

from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from physics.mechanics.grid import difference_symbols


class GreenOperator:
    """Solve the homogeneous reference problem: the zero-mean z with -div C0 grad z = r.

    The symbol is a Hermitian matrix per frequency. Real entries are stored twice, for the real
    and imaginary parts, so that no real number is promoted to a complex one on the way.
    """

    def __init__(self, symbol: Inexact[Tensor, "c c *frequency"], shape: tuple[int, ...]) -> None:
        c = symbol.shape[0]
        self._diagonal = [_doubled(symbol[i, i].real) for i in range(c)]
        self._real = not symbol.is_complex()
        others = [[j for j in range(c) if j != i] for i in range(c)]
        self._others = [
            [(j, _doubled(symbol[i, j]) if self._real else symbol[i, j].contiguous()) for j in row]
            for i, row in enumerate(others)
        ]
        self._shape = shape
        self._axes = tuple(range(-len(shape), 0))

    def __call__(
        self, r: Float[Tensor, "batch load c *space"]
    ) -> Float[Tensor, "batch load c *space"]:
        return _SelfAdjoint.apply(r, self) if r.requires_grad else self.solve(r)

    def solve(
        self, r: Float[Tensor, "batch load c *space"]
    ) -> Float[Tensor, "batch load c *space"]:
        """Return z without recording a gradient."""
        return self._inverse(self._scaled(torch.fft.rfftn(r, dim=self._axes)))

    def _scaled(self, spectrum: Tensor) -> Tensor:
        """Return the symbol times the spectrum, which may be overwritten."""
        solved = torch.empty_like(spectrum)
        components = spectrum.unbind(2)
        for i, target in enumerate(solved.unbind(2)):
            torch.mul(
                torch.view_as_real(components[i]),
                self._diagonal[i],
                out=torch.view_as_real(target),
            )
            for j, entry in self._others[i]:
                if self._real:
                    torch.view_as_real(target).addcmul_(torch.view_as_real(components[j]), entry)
                else:
                    target.addcmul_(components[j], entry)
        return solved

    def _inverse(self, spectrum: Tensor) -> Tensor:
        if spectrum.dtype is not torch.complex64 or spectrum.device.type != "cpu":
            return torch.fft.irfftn(spectrum, s=self._shape, dim=self._axes)
        # In single precision MKL is faster axis by axis.
        for axis in self._axes[:-1]:
            spectrum = torch.fft.ifft(spectrum, dim=axis)
        return torch.fft.irfft(spectrum, n=self._shape[-1])


class StaggeredGreen(GreenOperator):
    """z = (r - c k* (k . r) / |k|^2) / |k|^2, k the symbols of the forward differences.

    With k by axis and two real fields it holds a quarter of what the matrix in 3-D takes.
    """

    def __init__(
        self,
        k: tuple[Inexact[Tensor, "..."], ...],
        c: float,
        shape: tuple[int, ...],
        real: torch.dtype,
    ) -> None:
        inverse = _inverse_laplacian(k)
        self._scale = _doubled(inverse.to(real))
        self._share = _doubled((-c * inverse**2).to(real))
        self._symbols = [entry.to(_complex(real)) for entry in k]
        self._conjugates = [entry.conj().resolve_conj() for entry in self._symbols]
        self._shape, self._axes = shape, tuple(range(-len(shape), 0))

    def _scaled(self, spectrum: Tensor) -> Tensor:
        components = spectrum.unbind(2)
        along = components[0] * self._symbols[0]
        for entry, symbol in zip(components[1:], self._symbols[1:], strict=True):
            along.addcmul_(entry, symbol)
        torch.view_as_real(along).mul_(self._share)
        for entry, conjugate in zip(components, self._conjugates, strict=True):
            torch.view_as_real(entry).mul_(self._scale)
            entry.addcmul_(along, conjugate)
        return spectrum


class _SelfAdjoint(torch.autograd.Function):
    """The Green operator for autograd: its transpose is itself."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, green: GreenOperator) -> Tensor:
        ctx.green = green
        return green.solve(r)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.green(gradients[0]), None


@lru_cache(maxsize=8)
def elastic_green(
    shape: tuple[int, ...], lame: float, dtype: torch.dtype, device: torch.device
) -> GreenOperator:
    """Return the Green operator of a reference with shear modulus 1 and the given Lame constant.

    z_i = (r_i - c conj(k_i) (k . r) / |k|^2) / |k|^2, c = (lame + 1) / (lame + 2), with k the
    symbols of the forward difference (Schneider, Ospald, Kabel 2016, doi:10.1002/nme.5008).
    """
    k = difference_symbols(shape, device)
    return StaggeredGreen(k, (lame + 1.0) / (lame + 2.0), shape, dtype)


@lru_cache(maxsize=8)
def conduction_green(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> GreenOperator:
    """Return the Green operator 1 / |k|^2 of a reference with conductivity 1."""
    inverse = _inverse_laplacian(difference_symbols(shape, device))
    return GreenOperator(inverse[None, None].to(_complex(dtype)), shape)


def symmetric_green(
    matrix: Float[Tensor, "c c *frequency"],
    laplacian: Float[Tensor, "*frequency"],
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> GreenOperator:
    """Return the Green operator of a real symmetric symbol; modes of zero Laplacian get zero."""
    empty = laplacian <= 1e-14
    c = len(matrix)
    unit = torch.eye(c, dtype=matrix.dtype, device=matrix.device)
    safe = torch.where(empty, unit.view(c, c, *[1] * len(shape)), matrix)
    return GreenOperator(torch.where(empty, 0.0, _symmetric_inverse(safe)).to(dtype), shape)


def _symmetric_inverse(a: Float[Tensor, "c c *frequency"]) -> Float[Tensor, "c c *frequency"]:
    """Return the inverses of small symmetric matrices by their adjugates."""
    match len(a):
        case 1:
            return 1.0 / a
        case 2:
            adjugate = torch.stack(
                (torch.stack((a[1, 1], -a[0, 1])), torch.stack((-a[0, 1], a[0, 0])))
            )
        case _:
            adjugate = torch.stack(
                [torch.linalg.cross(a[i - 2], a[i - 1], dim=0) for i in range(3)]
            )
    return adjugate / (a[0] * adjugate[0]).sum(0)


def _doubled(entry: Tensor) -> Tensor:
    return torch.stack((entry, entry), -1).contiguous()


def _inverse_laplacian(k: tuple[Tensor, ...]) -> Tensor:
    """Return 1 / |k|^2, zero at the constant mode."""
    square = sum((entry.abs() ** 2 for entry in k), torch.zeros((), device=k[0].device))
    square[(0,) * len(k)] = torch.inf
    return 1.0 / square


def _complex(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype is torch.float32 else torch.complex128
