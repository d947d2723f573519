"""Volumes matched to their sections: interfaces that lines cross, and their smoothing."""

import numpy as np
import pytest
import torch

from generators import ConditionalDiffusion
from generators.denoiser import PhaseDenoiser
from generators.fractions import cut_exactly
from generators.section_diffusion import SectionDiffusion
from generators.section_matching import (
    MOST_PASSES,
    matching_passes,
    smooth_often,
    unlike_neighbours,
)
from microstructures import ProcessSpace
from physics import two_point_correlation

HALF = torch.tensor([[0.5, 0.5]], dtype=torch.float64)


def halves(logits):
    return cut_exactly(logits, HALF)


@pytest.mark.parametrize("wraps", [True, False])
def test_a_volume_and_its_sections_have_the_same_interfaces(wraps):
    labels = torch.randint(3, (1, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    volume = unlike_neighbours(labels, (wraps,) * 3)
    sections = [unlike_neighbours(labels[0].movedim(a, 0), (wraps,) * 2).mean() for a in range(3)]
    assert float(volume) == pytest.approx(float(torch.stack(sections).mean()))


def test_a_wall_is_counted_once_and_a_seam_only_where_it_wraps():
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[:, 2:] = 1
    assert float(unlike_neighbours(labels, (False, False))) == pytest.approx(1 / 3 / 2)
    assert float(unlike_neighbours(labels, (True, True))) == pytest.approx(2 / 4 / 2)


def test_rough_volumes_are_smoothed_to_the_wanted_interfaces():
    generator = torch.Generator().manual_seed(0)
    wave = torch.sin(2 * torch.pi * torch.arange(16) / 16)[:, None, None].expand(16, 16, 16)
    field = 2 * wave + torch.randn(16, 16, 16, generator=generator)
    logits = torch.stack([-field, field])[None]
    rough = float(unlike_neighbours(halves(logits), (True,) * 3))
    wanted = 0.7 * rough
    passes = matching_passes(logits, wanted, halves, periodic=(True,) * 3)
    assert 0 < passes < MOST_PASSES
    made = unlike_neighbours(
        halves(smooth_often(logits, passes, periodic=(True,) * 3)), (True,) * 3
    )
    assert float(made) == pytest.approx(wanted, rel=0.01)
    assert matching_passes(logits, 1.01 * rough, halves, periodic=(True,) * 3) == 0.0
    assert matching_passes(logits, 0.0, halves, periodic=(True,) * 3) > 0.99 * MOST_PASSES


class Blurring(PhaseDenoiser):
    """A net whose context is the mean over a line of voxels along each axis of its plane."""

    def __init__(self, reach: tuple[int, int]) -> None:
        super().__init__(
            space=ProcessSpace([]),
            n_phases=2,
            periodic=(True, True),
            widths=(8,),
            blocks=1,
            latent_dim=1,
            features=8,
        )
        self.reach = reach

    def forward(self, x, sigma, condition):
        blurred = x
        for axis, reach in enumerate(self.reach, start=2):
            blurred = sum(blurred.roll(k, axis) for k in range(-reach, reach + 1)) / (2 * reach + 1)
        level = sigma.view(-1, 1, 1, 1)
        return 6 * blurred / (1 + level) + 2 * x / level.square()


def test_three_models_of_sections_make_a_volume_as_anisotropic_as_they_are():
    # Sections that hold axis 2 are drawn out along it, those normal to it are not.
    def model(reach):
        return ConditionalDiffusion(
            Blurring(reach),
            space=ProcessSpace([]),
            voxel_size_um=1.0,
            periodic=(True, True),
            phase_names=("a", "b"),
            match_fractions=False,
        )

    def correlation(structures):
        cells = torch.from_numpy(np.stack([m.phases for m in structures])) == 1
        return two_point_correlation(cells.float()).mean(0)

    long, round_ = model((1, 5)), model((1, 1))
    volumes = SectionDiffusion.of_sections(long, long, round_)
    # These contexts are sums over lines: three of them repeat one another.
    volumes.net.opinions = 1.0
    made = correlation(volumes.sample({}, n=2, shape=(32, 32, 32), seed=0, volume_fraction=0.5))
    section = correlation(long.sample({}, n=16, shape=(32, 32), seed=0, volume_fraction=0.5))
    for lag in (1, 2, 3, 4):
        across, drawn_out = float(section[lag, 0]), float(section[0, lag])
        assert drawn_out > across + 0.02
        assert float(made[0, 0, lag]) == pytest.approx(drawn_out, abs=0.02)
        assert float(made[0, lag, 0]) == pytest.approx(across, abs=0.03)
        assert float(made[lag, 0, 0]) == pytest.approx(across, abs=0.03)
