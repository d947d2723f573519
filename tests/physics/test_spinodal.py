"""Cahn-Hilliard against its linear theory, its conservation laws and its coarsening law."""

import itertools
import math

import numpy as np
import pytest
import torch

from microstructures import DataError
from physics.processes import SpinodalDecomposition
from physics.processes.campaign import process_points
from physics.processes.spinodal import cahn_hilliard, free_energy

PROCESS = {"composition": 0.45, "temperature_k": 720.0, "ageing_time_h": 1.5}


def noise(shape, *, amplitude=0.1, mean=0.0, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
    axes = tuple(range(1, field.ndim))
    return mean + amplitude * (field - field.mean(axes, keepdim=True))


@pytest.mark.parametrize("shape", [(32, 32), (12, 16, 20)])
def test_mass_is_conserved_and_energy_never_rises(shape):
    spacing = torch.tensor([1.0, 0.8], dtype=torch.float64)
    psi = noise(shape, mean=0.2)
    energies = []
    for _ in range(6):
        energies.append(free_energy(psi, spacing=spacing))
        psi = cahn_hilliard(psi, spacing=spacing, end=torch.full((2,), 8.0, dtype=torch.float64))
        assert psi.flatten(1).mean(1).sub(0.2).abs().max() < 1e-12
    assert (torch.stack(energies).diff(dim=0) <= 1e-12).all()


def test_each_mode_grows_as_linear_theory_says():
    # w(k) = k^2 (1 - 3 psi0^2 - k^2): Cahn (1961) in scaled units.
    n, mean, amplitude, time = 64, 0.1, 1e-6, 2.0
    x = torch.arange(n, dtype=torch.float64)
    for mode in (2, 5, 7):
        k = 2 * math.pi * mode / n
        start = (mean + amplitude * torch.cos(k * x))[None, :, None].expand(1, n, 8)
        end = torch.tensor([time], dtype=torch.float64)
        psi = cahn_hilliard(start, spacing=torch.ones(1, dtype=torch.float64), end=end, step=0.0125)
        grown = (psi[0, :, 0] * torch.cos(k * x)).mean() * 2 / amplitude
        rate = k**2 * (1 - 3 * mean**2 - k**2)
        assert math.log(grown) / time == pytest.approx(rate, rel=1e-3)


def test_time_integration_is_of_second_order():
    x = 2 * math.pi * torch.arange(32, dtype=torch.float64) / 32
    start = 0.3 * (torch.cos(2 * x)[:, None] + torch.sin(3 * x)[None] * torch.cos(x)[:, None])
    spacing, end = torch.ones(1, dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
    counts = (128, 256, 512, 4096)
    run = [cahn_hilliard(start[None], spacing=spacing, end=end, step=4 / n) for n in counts]
    errors = [(r - run[-1]).norm().item() for r in run[:-1]]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert orders[-1] == pytest.approx(2, abs=0.1)


@pytest.mark.slow
def test_coarsening_follows_the_cube_root_of_time():
    # Length = 1/<k> of the structure factor against t^(1/3) with an offset, the form that holds
    # before the asymptotic regime (Huse 1986), over a decade of time.
    times, lengths = np.array([60.0, 100.0, 180.0, 320.0, 600.0]), []
    psi = noise((192, 192), batch=2, seed=4)
    spacing = torch.ones(2, dtype=torch.float64)
    for step in np.diff(times, prepend=0.0):
        end = torch.full((2,), step, dtype=torch.float64)
        psi = cahn_hilliard(psi, spacing=spacing, end=end, step=0.5)
        power = torch.fft.fft2(psi).abs().square().mean(0)
        k = torch.fft.fftfreq(192, dtype=torch.float64)
        radius = (k[:, None].square() + k[None].square()).sqrt()
        lengths.append(float(power.sum() / (power * radius).sum()))
    roots = np.cbrt(times)
    slope, offset = np.polyfit(roots, lengths, 1)
    residual = np.array(lengths) - (slope * roots + offset)
    assert slope > 0
    assert np.abs(residual).max() < 0.02 * lengths[-1]
    exponent = np.polyfit(np.log(times), np.log(lengths), 1)[0]
    assert 0.2 < exponent < 0.36


def test_sample_depends_on_its_index_alone():
    alloy = SpinodalDecomposition()
    points = process_points(alloy.space, 4, seed=3)
    together = alloy.simulate(points, shape=(16, 16), seed=7)
    for index, point in enumerate(points):
        alone = alloy.simulate(point, shape=(16, 16), seed=7, first=index)[0]
        assert (alone.phases == together[index].phases).all()


def test_composition_sets_the_fraction_by_the_lever_rule():
    alloy = SpinodalDecomposition()
    process = {"composition": 0.42, "temperature_k": 700.0, "ageing_time_h": 6.0}
    cells = alloy.simulate(process, shape=(64, 64), seed=0, n=8)
    half_gap = math.sqrt(3 * (alloy.critical_temperature_k / 700.0 - 1))
    lever = 0.5 + (2 * 0.42 - 1) / (2 * half_gap)
    fractions = [cell.volume_fractions[1] for cell in cells]
    # Curved interfaces keep some solute dissolved (Gibbs-Thomson): a little below the lever rule.
    assert lever - 0.03 < np.mean(fractions) < lever + 0.005


def test_three_dimensions_and_metadata():
    cell = SpinodalDecomposition().simulate(PROCESS, shape=(12, 16, 8), seed=0)[0]
    assert cell.shape == (12, 16, 8)
    assert cell.periodic == (True, True, True)
    assert cell.process == PROCESS
    assert cell.n_phases == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"composition": 0.9}, "between 0.36 and 0.64"),
        ({"temperature_k": None}, "expected values for"),
        ({"pressure": 1.0}, "pressure"),
        ({"ageing_time_h": float("nan")}, "finite"),
    ],
)
def test_bad_parameters_are_named(change, words):
    with pytest.raises(DataError, match=words):
        SpinodalDecomposition().simulate({**PROCESS, **change}, shape=(16, 16), seed=0)


def test_process_points_grow_without_moving():
    space = SpinodalDecomposition().space
    assert process_points(space, 4, seed=1) == process_points(space, 9, seed=1)[:4]
