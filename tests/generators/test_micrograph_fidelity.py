"""Measures of micrographs against pictures whose statistics are known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from generators.micrograph_fidelity import (
    EDGE_REACH,
    compare_grey,
    edge_profiles,
    grey_statistics,
    texture_correlation,
)
from microstructures import DataError, Microstructure

RNG = np.random.default_rng(3)


def drawn(grey_of, n=4, side=48):
    made = []
    for _ in range(n):
        phases = (gaussian_filter(RNG.standard_normal((side, side)), 4) > 0).astype(int)
        grey = np.clip(np.rint(grey_of(phases)), 0, 255).astype(np.uint8)
        made.append(Microstructure(phases, periodic=(False,)).with_channels(grey=grey))
    return made


def plain(phases):
    return 100 + 40 * phases + 8 * RNG.standard_normal(phases.shape)


def test_equal_pictures_have_no_distance_and_tone_does_not_matter():
    pictures = drawn(plain)
    brighter = [
        p.with_channels(grey=(p.channels["grey"] // 2 + 90).astype(np.uint8)) for p in pictures
    ]
    same = compare_grey(grey_statistics(pictures), grey_statistics(pictures))
    assert (same.levels, same.texture, same.edges, same.spectrum) == (0, 0, 0, 0)
    toned = compare_grey(grey_statistics(brighter), grey_statistics(pictures))
    assert toned.levels < 0.02
    assert toned.edges < 0.02


@pytest.mark.parametrize(
    ("other", "measure"),
    [
        (lambda p: 100 + 10 * p + 8 * RNG.standard_normal(p.shape), "levels"),
        (lambda p: 100 + 40 * p + 20 * gaussian_filter(RNG.standard_normal(p.shape), 1), "texture"),
        (lambda p: gaussian_filter(plain(p), 2), "edges"),
        (lambda p: gaussian_filter(plain(p), 1), "spectrum"),
    ],
)
def test_each_measure_sees_what_it_is_for(other, measure):
    real = grey_statistics(drawn(plain))
    floor = compare_grey(grey_statistics(drawn(plain)), real)
    found = compare_grey(grey_statistics(drawn(other)), real)
    assert getattr(found, measure) > 3 * getattr(floor, measure)


def test_white_noise_is_not_correlated_and_smooth_noise_is_as_much_as_its_kernel_says():
    inside = RNG.random((4, 64, 64)) < 0.7
    white = RNG.standard_normal((4, 64, 64))
    flat = texture_correlation(white, inside, (False, False))
    assert flat[0] == pytest.approx(1)
    assert np.abs(flat[2:]).max() < 0.05
    smooth = np.stack([gaussian_filter(w, 2, mode="wrap") for w in white])
    found = texture_correlation(smooth, inside, (True, True))
    expected = np.exp(-(np.arange(9) ** 2) / (4 * 2**2))
    assert np.abs(found - expected)[:5].max() < 0.1


def test_edges_are_told_apart_by_their_direction():
    phases = np.zeros((1, 40, 16), int)
    phases[:, 12:28] = 1
    grey = phases.astype(float)
    grey[:, 11] = 5.0  # lit from below along axis 0
    up, down, left, right = edge_profiles(grey, phases)
    assert up[EDGE_REACH - 1] == 5.0
    assert down[EDGE_REACH - 1] == 0.0
    assert up[EDGE_REACH] == down[EDGE_REACH] == 1.0
    assert not left.any()
    assert not right.any()


def test_pictures_without_grey_or_a_phase_are_refused():
    with pytest.raises(DataError, match="grey"):
        grey_statistics([Microstructure(np.eye(8, dtype=int))])
    lacking = Microstructure(np.zeros((32, 32), int), phase_names=("a", "b"))
    with pytest.raises(DataError, match="none of b"):
        grey_statistics([lacking.with_channels(grey=np.zeros((32, 32), np.uint8))])
