"""Sintering against Coble's law, Herring's scaling, conservation of solid and closing pores."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from microstructures import DataError
from microstructures.seeds import generator_for
from physics.processes.campaign import process_points
from physics.processes.kinetics import growth_exponent
from physics.processes.particle_packing import Packing
from physics.processes.powder import green_body
from physics.processes.sintering import Sintering, sintered_density, sintered_solid
from physics.statistics.clusters import percolates

PROCESS = {
    "green_density": 0.55,
    "particle_size_um": 0.5,
    "temperature_k": 1500.0,
    "sintering_time_h": 2.0,
}


def shrinkage(work, green=0.5):
    return 1 - (green / sintered_density(work, green_density=green)) ** (1 / 3)


def test_initial_stage_follows_coble():
    # y^3 = W t: exponent 1/3 while y < 0.02, where porosity has hardly changed.
    work = np.geomspace(1e-7, 1e-6, 6)
    y = [shrinkage(float(w)) for w in work]
    assert growth_exponent(work, y) == pytest.approx(1 / 3, abs=0.01)
    assert y[0] == pytest.approx(np.cbrt(work[0]), rel=0.01)


@pytest.mark.parametrize("green", [0.45, 0.6])
def test_density_solves_the_rate_law(green):
    # W t(y) = int_0^y 3 u^2 (1 - rho_0)/(1 - rho(u)) du by another quadrature.
    for fraction in (0.1, 0.5, 0.9):
        y = fraction * (1 - green ** (1 / 3))
        work = quad(lambda u: 3 * u**2 * (1 - green) / (1 - green / (1 - u) ** 3), 0, y)[0]
        expected = green / (1 - y) ** 3
        assert sintered_density(work, green_density=green) == pytest.approx(expected, rel=1e-4)


def test_density_rises_from_green_to_full():
    work = np.geomspace(1e-12, 10, 60)
    density = np.array([sintered_density(float(w), green_density=0.5) for w in work])
    assert (np.diff(density) >= 0).all()
    assert density[0] == pytest.approx(0.5, abs=1e-3)
    assert 0.9999 < density[-1] <= 1


def test_temperature_size_and_time_scale_as_diffusion_says():
    process = Sintering()
    # Arrhenius in W T, and Herring (1950): time to a density goes as size^4.
    rates = [t * process.rate_per_h(t, 0.5) for t in (1450.0, 1550.0)]
    slope = math.log(rates[1] / rates[0]) / (1 / 1450.0 - 1 / 1550.0)
    assert slope * 8.314462618e-3 == pytest.approx(process.activation_energy_kj_mol, rel=1e-9)
    small = {**PROCESS, "particle_size_um": 0.4, "sintering_time_h": 0.5}
    large = {**PROCESS, "particle_size_um": 0.6, "sintering_time_h": 0.5 * 1.5**4}
    assert process.density(small) == pytest.approx(process.density(large), abs=1e-9)
    for name, factors in (
        ("temperature_k", (0.96, 1.0, 1.04)),
        ("sintering_time_h", (0.3, 1.0, 4.0)),
        ("green_density", (0.85, 1.0, 1.05)),
        ("particle_size_um", (1.5, 1.0, 0.9)),
    ):
        densities = [process.density({**PROCESS, name: PROCESS[name] * f}) for f in factors]
        assert densities[0] < densities[1] < densities[2]


def test_rate_of_a_known_powder():
    # 1.5 gamma Omega delta D / (k T a^4) with round numbers, per hour.
    process = Sintering(boundary_diffusivity_m3_s=1e-23, reference_temperature_k=1500.0)
    by_hand = 1.5 * 2.1e-29 * 1e-23 / (1.380649e-23 * 1500) / (0.25e-6) ** 4 * 3600
    assert process.rate_per_h(1500.0, 0.5) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("shape", [(40, 48), (24, 20, 22)])
def test_cells_have_the_density_of_the_kinetics(shape):
    process = Sintering()
    points = process_points(process.space, 5, seed=1)
    for point, cell in zip(points, process.simulate(points, shape=shape, seed=0), strict=True):
        wanted = process.density(point)
        assert point["green_density"] < wanted <= 1
        assert cell.volume_fractions[1] == pytest.approx(wanted, abs=0.51 / math.prod(shape))


@pytest.mark.parametrize("shape", [(64, 64), (24, 24, 24)])
def test_solid_volume_is_conserved(shape):
    # What stands in the sintered cell is what the particles of the green body held.
    green, density, radius = 0.5, 0.8, 0.2
    cell = np.array(shape) * 0.05 * (density / green) ** (1 / len(shape))
    powder = green_body(green, radius, 0.1, cell_um=cell, generator=generator_for(0))
    assert powder.fraction == pytest.approx(green, abs=0.6 / len(powder.radii_um))
    assert powder.smallest_gap_um > -0.2 * radius
    solid = sintered_solid(powder, density, shape=shape, voxel_size_um=0.05, neck_radius_um=0.02)
    volume = float(solid.sum()) * 0.05 ** len(shape)
    assert volume == pytest.approx(powder.fraction * cell.prod(), rel=0.03)


def test_necks_grow_as_the_two_particle_model_says():
    # Two spheres approach by y; Coble's neck is X^2 = 4 a^2 y, and no less than that of spheres
    # that merely overlap, X^2 = 2 a^2 y.
    a, n = 14.0, 40
    necks = []
    for y in (0.03, 0.06, 0.1):
        half = a * (1 - y)
        powder = Packing(
            np.array([[n - half, n / 2, n / 2], [n + half, n / 2, n / 2]]),
            np.array([a, a]),
            np.array([2.0 * n, n, n]),
        )
        density = 2 * 4 / 3 * math.pi * a**3 / (2 * n**3)
        solid = sintered_solid(
            powder, density, shape=(2 * n, n, n), voxel_size_um=1.0, neck_radius_um=a * y
        )
        necks.append(math.sqrt(float(solid[n].sum()) / math.pi) / a)
    assert necks == sorted(necks)
    for neck, y in zip(necks, (0.03, 0.06, 0.1), strict=True):
        assert 2 * y < neck**2 < 5 * y


def test_pore_channels_close_between_twelve_and_five_percent():
    # Open pores close at about 8 % porosity (Coble 1961).
    def channels(density):
        shape, radius, green = (40, 40, 40), 0.2, 0.55
        cell = np.array(shape) * 0.05 * (density / green) ** (1 / 3)
        y = 1 - (green / density) ** (1 / 3)
        bodies = []
        for seed in range(3):
            powder = green_body(green, radius, 0.1, cell_um=cell, generator=generator_for(seed))
            bodies.append(
                sintered_solid(
                    powder, density, shape=shape, voxel_size_um=0.05, neck_radius_um=radius * y
                )
            )
        solid = torch.stack(bodies)
        assert percolates(solid).all()
        return float(percolates(~solid).double().mean())

    assert channels(0.75) == 1
    assert channels(0.95) < 0.2


def test_surface_shrinks_as_the_body_sinters():
    process = Sintering()
    surfaces = []
    for hours in (0.5, 2.0, 8.0):
        cells = process.simulate(
            {**PROCESS, "sintering_time_h": hours}, shape=(96, 96), seed=0, n=2
        )
        faces = sum(
            (c.phases != np.roll(c.phases, 1, axis)).mean() for c in cells for axis in (0, 1)
        )
        surfaces.append(faces)
    assert surfaces[0] > surfaces[1] > surfaces[2]


def test_a_sample_depends_on_its_index_alone():
    process = Sintering()
    both = process.simulate([PROCESS, PROCESS], shape=(32, 32), seed=5, n=2)
    alone = process.simulate(PROCESS, shape=(32, 32), seed=5, first=3)[0]
    assert (both[3].phases == alone.phases).all()
    assert (both[2].phases != alone.phases).any()


def test_bad_input_is_named():
    process = Sintering()
    with pytest.raises(DataError, match="expected values for"):
        process.simulate({"green_density": 0.5}, shape=(32, 32), seed=0)
    with pytest.raises(DataError, match="temperature_k between"):
        process.simulate({**PROCESS, "temperature_k": 900.0}, shape=(32, 32), seed=0)
    with pytest.raises(DataError, match="5 voxels wide"):
        Sintering(voxel_size_um=0.2).simulate(PROCESS, shape=(32, 32), seed=0)
    with pytest.raises(DataError, match="change voxel_size_um or the shape"):
        process.simulate(PROCESS, shape=(12, 12), seed=0)
    with pytest.raises(DataError, match="atomic_volume_m3 above 0"):
        Sintering(atomic_volume_m3=0.0)
    with pytest.raises(DataError, match="size_variation"):
        Sintering(size_variation=0.9)
