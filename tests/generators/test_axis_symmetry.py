"""What the data's own directional statistics allow: exchanging and mirroring axes."""

from types import SimpleNamespace

import numpy as np
import pytest

from generators.axis_symmetry import AxisSymmetry, augmentation_settings
from microstructures import Microstructure, MicrostructureDataset, Parameter, ProcessSpace

SPACE = ProcessSpace([Parameter("a", "-", 0.0, 1.0)])
SMOOTHED = (1.0, 1.0)


def smoothed(noise, widths):
    """Periodic Gaussian smoothing of white noise, one width per axis."""
    grid = np.meshgrid(*[np.fft.fftfreq(n) for n in noise.shape], indexing="ij")
    damping = sum((2 * np.pi * w * k) ** 2 for w, k in zip(widths, grid, strict=True))
    return np.fft.ifftn(np.fft.fftn(noise) * np.exp(-damping / 2)).real


def saw(draw):
    """Teeth with a steep and a flat side along x: mirrored, they are others."""
    x = np.arange(32)[:, None] + draw.integers(32) + np.zeros((1, 32))
    height = draw.permutation(32)[None]
    return ((x % 8) * 4 > height).astype(float) - 0.5


def fields(kind, *, n=24, shape=(32, 32), periodic=True):
    draw = np.random.default_rng(5)
    cells = []
    for _ in range(n):
        match kind:
            case "saw":
                values = saw(draw)
            case "slanted":
                values = smoothed(draw.normal(size=shape), (0.5, 3.0))
                rows = [np.roll(row, k) for k, row in enumerate(values)]
                values = np.array(rows)
            case widths:
                values = smoothed(draw.normal(size=shape), widths)
        labels = (values > np.median(values)).astype(np.uint8)
        cells.append(Microstructure(labels, periodic=(periodic,) * len(shape), process={"a": 0.5}))
    return MicrostructureDataset.from_structures(cells, SPACE)


@pytest.mark.parametrize("periodic", [True, False])
def test_isotropic_structures_may_be_turned(periodic):
    found = AxisSymmetry.of(fields(SMOOTHED, periodic=periodic))
    assert found.isotropic
    assert found.flips == (True, True)
    assert found.maps == 24


@pytest.mark.parametrize(
    ("kind", "isotropic", "flips"),
    [
        ((0.5, 2.0), False, (True, True)),
        ("slanted", False, (False, False)),
        ("saw", False, (False, True)),
    ],
)
def test_directions_that_differ_are_kept_apart(kind, isotropic, flips):
    found = AxisSymmetry.of(fields(kind))
    assert (found.isotropic, found.flips) == (isotropic, flips)


def test_volumes_and_oblong_cells():
    assert AxisSymmetry.of(fields((1.0, 1.0, 1.0), n=8, shape=(12, 12, 12))).isotropic
    oblong = AxisSymmetry.of(fields(SMOOTHED, shape=(32, 24)))
    assert oblong.exchange is None
    assert not oblong.isotropic
    assert "not possible" in str(oblong)


def test_crops_of_few_maps_are_tested_by_map():
    """Anisotropy of one odd map among eight proves nothing of the process."""
    data = fields(SMOOTHED, n=63)
    odd = fields((0.5, 3.0), n=9)
    cells = [data[k] for k in range(63)] + [odd[k] for k in range(9)]
    names = [f"map {k // 9}" for k in range(72)]
    both = MicrostructureDataset.from_structures(cells, SPACE, sources=names)
    both.about["import"] = {}
    found = AxisSymmetry.of(both)
    assert found.maps == 8
    assert found.isotropic


def test_only_what_is_auto_is_asked_of_the_data():
    data = fields((0.5, 2.0))
    asked = SimpleNamespace(isotropic="auto", flips=False)
    assert augmentation_settings(asked, data) == {"isotropic": False, "flips": False}
    said = SimpleNamespace(isotropic=True, flips=(True, False))
    assert augmentation_settings(said, data) == {"isotropic": True, "flips": (True, False)}
