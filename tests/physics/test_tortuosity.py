"""Tortuosity against channels, the FFT solver on mirrored cells, taufactor and skimage."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from skimage.graph import MCP_Geometric

from microstructures import ConvergenceError, DataError
from physics import effective_conductivity
from physics.processes import SpinodalDecomposition
from physics.statistics import (
    diffusion,
    diffusional_tortuosity,
    geometric_tortuosity,
    percolating_part,
)


def porous(shape, *, share, seed=0, smoothing=1.5):
    """A smoothed noise cut so that the share of voxels lies in the phase, periodic, batch of 1."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    waves = torch.meshgrid(*[torch.fft.fftfreq(n).double() for n in shape], indexing="ij")
    axes = tuple(range(1, noise.ndim))
    decay = torch.exp(-2 * (math.pi * smoothing) ** 2 * torch.stack(waves).square().sum(0))
    field = torch.fft.ifftn(torch.fft.fftn(noise, dim=axes) * decay, dim=axes).real
    return field < torch.quantile(field.flatten(), share)


@pytest.mark.parametrize("shape", [(9, 8), (7, 8, 9)])
def test_straight_channels_have_tortuosity_one(shape):
    for axis in range(len(shape)):
        channels = torch.zeros(1, *shape).movedim(axis + 1, -1)
        channels[:, 1:3] = 1
        channels[:, 5, ..., : shape[axis] // 2] = 1
        channels = channels.movedim(-1, axis + 1)
        # The blind one counts in the fraction but carries nothing.
        open_share = float(percolating_part(channels, periodic=False)[:, axis].double().mean())
        expected = float(channels.double().mean()) / open_share
        for periodic in (False, True):
            tau = diffusional_tortuosity(channels, axis=axis, periodic=periodic, tolerance=1e-6)
            assert float(tau) == pytest.approx(expected, rel=1e-9)
        for path in ("mean", "shortest"):
            assert float(geometric_tortuosity(channels, axis=axis, path=path)) == pytest.approx(1)


def mirrored(a, axis, flags):
    """tau by the periodic FFT solver: mirror images make walls of fixed concentration."""
    cells, growth = percolating_part(a, periodic=flags)[:, axis], 1.0
    for other, wrap in enumerate(flags):
        n = a.shape[other + 1]
        if other == axis and not wrap:
            cells = torch.cat([cells, cells.flip(other + 1)], other + 1)
        elif not wrap:
            wall = torch.zeros_like(cells.narrow(other + 1, 0, 1))
            cells, growth = torch.cat([cells, wall], other + 1), growth * (n + 1) / n
    value = effective_conductivity(cells.long(), [0.0, 1.0], tolerance=1e-5).value
    return float(a.double().mean() / (value[0, axis, axis] * growth))


@pytest.mark.parametrize("shape", [(17, 20), (13, 10, 11)])
def test_diffusion_equals_the_fft_solver_on_mirrored_cells(shape):
    a = porous(shape, share=0.7 if len(shape) == 2 else 0.5)
    for flags in itertools.product((True, False), repeat=len(shape)):
        expected = mirrored(a, 1, flags)
        assert expected > 1.1
        exact = diffusional_tortuosity(a, axis=1, periodic=flags, tolerance=1e-6)
        assert float(exact) == pytest.approx(expected, rel=1e-7)
        rough = diffusional_tortuosity(a, axis=1, periodic=flags)
        assert float(rough) == pytest.approx(expected, rel=5e-5)
        assert float(rough) <= float(exact) * (1 + 1e-12)


def test_diffusion_agrees_with_taufactor():
    process = {"composition": 0.4, "temperature_k": 700.0, "ageing_time_h": 1.0}
    cell = SpinodalDecomposition().simulate(process, shape=(32, 28, 30), seed=0)[0]
    inside = torch.from_numpy(cell.phases == 1)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside taufactor and what it imports
        taufactor = pytest.importorskip("taufactor", reason="taufactor (extra: peers) is absent")
        image = inside[0].numpy().astype(np.uint8)
        for solver, flags in (
            (taufactor.Solver, (False, False, False)),
            (taufactor.PeriodicSolver, (False, True, True)),
        ):
            theirs = solver(image, device="cpu").solve(verbose=False, conv_crit=1e-4)
            ours = diffusional_tortuosity(inside, periodic=flags)
            assert float(ours) == pytest.approx(float(theirs[0]), rel=2e-4)


def test_a_phase_that_does_not_percolate_has_infinite_tortuosity():
    cells = torch.ones(3, 6, 6, 6)
    cells[0, 3] = 0
    cells[1] = 0
    for axis, infinite in ((0, [True, True, False]), (1, [False, True, False])):
        diffusional = diffusional_tortuosity(cells, axis=axis)
        geometric = geometric_tortuosity(cells, axis=axis)
        assert diffusional.isinf().tolist() == geometric.isinf().tolist() == infinite
    # Corners let a path through, but no flux.
    diagonal = torch.eye(5)[None]
    assert float(diffusional_tortuosity(diagonal)) == math.inf
    assert float(geometric_tortuosity(diagonal)) == pytest.approx(math.sqrt(2))


def test_a_bent_channel_is_as_much_longer_as_its_bends():
    bent = torch.zeros(1, 9, 9)
    bent[0, :5, 2] = bent[0, 4, 2:7] = bent[0, 4:, 6] = 1
    # 3 up, 2 across, 3 up, and the two corners cut.
    exact = (3 + 2 + 3 + 2 * math.sqrt(2)) / 8
    assert float(geometric_tortuosity(bent)) == pytest.approx(exact)
    assert float(geometric_tortuosity(bent, axis=1)) == math.inf
    around = bent.roll(5, 2)
    assert float(geometric_tortuosity(around)) == math.inf
    assert float(geometric_tortuosity(around, periodic=True)) == pytest.approx(exact)


@pytest.mark.parametrize("shape", [(24, 30), (16, 14, 15)])
def test_path_lengths_equal_those_of_skimage(shape):
    a = porous(shape, share=0.75 if len(shape) == 2 else 0.5, seed=1)
    inside = a[0].numpy()
    search = MCP_Geometric(np.where(inside, 1.0, -1.0))
    starts = [(0, *place) for place in np.argwhere(inside[0])]
    reached = search.find_costs(starts)[0][-1][inside[-1]]
    reached = reached[np.isfinite(reached)] / (shape[0] - 1)
    assert float(geometric_tortuosity(a)) == pytest.approx(reached.mean())
    assert float(geometric_tortuosity(a, path="shortest")) == pytest.approx(reached.min())


def test_two_periodic_voxels_are_neighbours_once():
    # In a checkerboard two voxels wide every step is a diagonal, by either side.
    board = (torch.arange(6)[:, None] + torch.arange(2)) % 2 == 0
    for periodic in (False, True):
        assert float(geometric_tortuosity(board[None], periodic=periodic)) == pytest.approx(2**0.5)


def test_paths_cross_periodic_faces_as_they_do_in_a_wider_cell():
    for shape in ((15, 8), (9, 2), (8, 3, 2)):
        a = porous(shape, share=0.6, seed=2, smoothing=0.7)
        # Five cells side by side: paths of the middle one meet no end.
        wide = a.repeat(1, 1, *[7] * (len(shape) - 1))
        found = geometric_tortuosity(a, periodic=True, path="shortest")
        assert float(found) == pytest.approx(float(geometric_tortuosity(wide, path="shortest")))


@pytest.mark.parametrize("size", [33, 64, 128, 255])
def test_iterations_do_not_grow_with_the_cell(size, monkeypatch):
    monkeypatch.setattr(diffusion, "MAX_ITERATIONS", 26)
    a = porous((size, size), share=0.75, seed=3, smoothing=2.0)
    for periodic in (False, True):
        assert 1 < float(diffusional_tortuosity(a, periodic=periodic)) < 10


def test_a_solver_that_stops_early_says_so(monkeypatch):
    monkeypatch.setattr(diffusion, "MAX_ITERATIONS", 2)
    with pytest.raises(ConvergenceError, match="2 iterations"):
        diffusional_tortuosity(porous((24, 24), share=0.7), tolerance=1e-6)


def test_bad_input_is_refused():
    a = torch.ones(1, 4, 4)
    for tortuosity in (diffusional_tortuosity, geometric_tortuosity):
        with pytest.raises(DataError, match="axis from 0 to 1"):
            tortuosity(a, axis=2)
        with pytest.raises(DataError, match="batch"):
            tortuosity(a[0])
    with pytest.raises(DataError, match="tolerance between 0 and 1"):
        diffusional_tortuosity(a, tolerance=0.0)
    with pytest.raises(DataError, match="2 voxels or more"):
        geometric_tortuosity(torch.ones(1, 1, 4))
