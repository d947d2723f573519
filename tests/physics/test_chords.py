"""Chords against a walk along every line, the lineal path, Poisson discs and porespy."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from microstructures import DataError
from physics.processes import SpinodalDecomposition
from physics.statistics import (
    chord_counts,
    chord_length_distribution,
    lineal_path,
    mean_chord_length,
)

from .test_correlation import overlapping_discs, soft


def walked(line, wrap):
    """Lengths of the whole chords of one line, voxel by voxel."""
    n = len(line)
    if all(line):
        return []
    if wrap:
        start = line.index(False)
        line = line[start:] + line[:start]
    runs = [(key, len(list(run))) for key, run in itertools.groupby(line)]
    chords = [length for key, length in runs if key]
    if not wrap:
        cut = (runs[0][1] if line[0] else 0, runs[-1][1] if line[n - 1] else 0)
        chords = chords[1 if cut[0] else 0 : -1 if cut[1] else None]
    return chords


@given(st.integers(0, 10_000), st.sampled_from([(6, 7), (4, 5, 3)]), st.floats(0.1, 0.95))
def test_counts_equal_those_of_a_walk(seed, shape, fraction):
    a = soft(shape, batch=2, seed=seed) < fraction
    for wrap in (True, False):
        found = chord_counts(a, max_length=max(shape), periodic=wrap)
        for k, axis in itertools.product(range(2), range(len(shape))):
            lines = a[k].movedim(axis, -1).flatten(0, -2).tolist()
            lengths = [z for line in lines for z in walked(line, wrap)]
            expected = np.bincount(lengths, minlength=max(shape) + 1)
            assert found[k, axis].tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(40, 40), (20, 20, 20)])
def test_density_of_chords_is_the_second_difference_of_the_lineal_path(shape):
    a = (soft(shape, seed=1) < 0.6).double()
    n = shape[0]
    path = lineal_path(a, max_lag=n - 1)
    density = path[..., :-2] - 2 * path[..., 1:-1] + path[..., 2:]
    counts = chord_counts(a, max_length=n - 2).double() / math.prod(shape)
    assert torch.allclose(counts[..., 1:], density, atol=1e-14)
    shares = chord_length_distribution(a, max_length=n)
    assert torch.allclose(shares.sum(2), torch.ones(2, len(shape)).double(), atol=1e-14)
    # Faces give the mean without looking at any chord.
    mean = (shares * torch.arange(n + 1)).sum(2)
    assert torch.allclose(mean, mean_chord_length(a), rtol=1e-12)


def test_poisson_discs_have_exponential_chords():
    # NUMERICS row 15: chords of the void are exponential with rate 2 R rho; whole voxels make that
    # geometric. The lineal path of the same void is exp(-rho (pi R^2 + 2 R z)).
    radius, density, n = 10.0, 0.002, 24
    void = overlapping_discs(n=n, size=320, radius=radius, density=density, seed=5)
    rate = 2 * radius * density
    z = torch.arange(1, 61, dtype=torch.float64)
    exact = torch.exp(-rate * (z - 1)) * (1 - math.exp(-rate))
    shares = chord_length_distribution(void, max_length=60).mean(1)[:, 1:]
    error = shares.mean(0) - exact
    assert (error.abs() < 4 * shares.std(0) / math.sqrt(n)).all()
    mean = mean_chord_length(void).double().mean(1)
    expected = 1 / (1 - math.exp(-rate))
    assert abs(float(mean.mean()) - expected) < 4 * float(mean.std()) / math.sqrt(n)
    path = lineal_path(void, max_lag=40).double().mean(1)
    z = torch.arange(41, dtype=torch.float64)
    exact = torch.exp(-density * (math.pi * radius**2 + 2 * radius * z))
    assert ((path.mean(0) - exact).abs() < 4 * path.std(0) / math.sqrt(n)).all()


def test_a_window_sees_chords_of_all_lengths_in_true_proportion():
    # Lines of geometric chords, far longer than the window in which they are seen.
    generator = torch.Generator().manual_seed(0)
    phase = torch.rand(1, 400, 4000, generator=generator) < 0.9
    windows = phase.unflatten(2, (-1, 20))[0].permute(1, 0, 2).contiguous()
    shares = chord_length_distribution(windows, max_length=18, periodic=False)[:, 1, 1:]
    exact = 0.9 ** torch.arange(18) * 0.1
    exact = exact / exact.sum()
    deviation = shares.mean(0) - exact
    assert (deviation.abs() < 4 * shares.std(0) / math.sqrt(len(windows))).all()
    counts = chord_counts(windows, max_length=18, periodic=False)[:, 1, 1:].double()
    plain = counts.sum(0) / counts.sum()
    assert float((plain - exact).abs()[0]) > 0.02


def test_mean_chord_of_slabs_and_its_gradient():
    slabs = torch.zeros(1, 12, 6, dtype=torch.float64)
    slabs[:, :3] = slabs[:, 6:9] = 1
    assert mean_chord_length(slabs)[0].tolist() == pytest.approx([3, math.inf])
    assert float(mean_chord_length(slabs, periodic=False)[0, 0]) == pytest.approx(
        2 * 0.5 / (3 / 11)
    )
    a = soft((4, 5), batch=1).requires_grad_()
    for wrap in (True, False):
        assert torch.autograd.gradcheck(lambda x, w=wrap: mean_chord_length(x, periodic=w), (a,))


def test_chords_agree_with_porespy():
    process = {"composition": 0.45, "temperature_k": 700.0, "ageing_time_h": 2.0}
    cell = SpinodalDecomposition().simulate(process, shape=(96, 96), seed=0)[0]
    indicator = cell.phases == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside porespy and what it imports
        from porespy.filters import apply_chords
        from porespy.metrics import chord_counts as peer

        # Chords on every other line, those on the image's outermost lines left out.
        theirs = [peer(apply_chords(indicator, spacing=1, axis=axis)) for axis in (0, 1)]
    for axis, lengths in enumerate(theirs):
        lines = np.moveaxis(indicator, axis, 1)[::2][1:-1]
        own = chord_counts(torch.from_numpy(lines.copy())[None], max_length=47, periodic=False)
        assert own[0, 1].tolist() == np.bincount(lengths, minlength=48).tolist()


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="max_length from 0 to 6"):
        chord_length_distribution(torch.ones(1, 4, 6), max_length=7)
    with pytest.raises(DataError, match="batch"):
        chord_counts(torch.ones(4, 4), max_length=2)
