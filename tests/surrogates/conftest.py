"""Tiny cells and surrogates: nothing here is trained for accuracy."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from microstructures import Microstructure, MicrostructureDataset, Parameter, ProcessSpace
from physics.mechanics import IsotropicElastic
from surrogates import FieldSurrogate
from surrogates.displacement_net import DisplacementNet
from surrogates.familiarity import Familiarity, describe
from surrogates.operators import FourierSettings
from surrogates.reference import ReferencedCells

SIDE = 16


def blobs(n: int, *, seed: int, side: int = SIDE) -> Tensor:
    """Return uint8 periodic cells of smooth blobs."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.fft.rfft2(torch.randn(n, side, side, generator=generator))
    frequency = torch.fft.fftfreq(side).view(-1, 1) ** 2 + torch.fft.rfftfreq(side).view(1, -1) ** 2
    field = torch.fft.irfft2(spectrum * torch.exp(-frequency * 60))
    return (field > 0).to(torch.uint8)


def untrained(dim: int, cells: Tensor) -> FieldSurrogate:
    """Return a surrogate with random weights that knows these cells."""
    torch.manual_seed(0)
    net = DisplacementNet(dim=dim, steps=2, operator=FourierSettings(modes=4, width=4, layers=2))
    shear = torch.where(cells == 1, 2.0, 0.5)
    referenced, _ = ReferencedCells.of_moduli(shear, shear)
    shape = tuple(cells.shape[1:])
    return FieldSurrogate(net, Familiarity.fit(describe(referenced.moduli), shape))


@pytest.fixture(name="blobs")
def blobs_() -> Callable[..., Tensor]:
    return blobs


@pytest.fixture(name="untrained")
def untrained_() -> Callable[..., FieldSurrogate]:
    return untrained


@pytest.fixture
def materials() -> list[IsotropicElastic]:
    return [
        IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.35),
        IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.25),
    ]


@pytest.fixture
def surrogate() -> FieldSurrogate:
    return untrained(2, blobs(24, seed=1))


@pytest.fixture
def dataset() -> MicrostructureDataset:
    cells = [Microstructure(phases=cell.numpy()) for cell in blobs(10, seed=2)]
    return MicrostructureDataset.from_structures(
        cells, ProcessSpace([Parameter("composition", "-", 0.0, 1.0)])
    )
