"""Principal components of S2: exact at full rank, invariant, ordered, and the same when loaded."""

import itertools

import numpy as np
import pytest
import torch

from microstructures import CheckpointError, DataError
from physics.processes.random_field import RandomField
from physics.statistics import lag_vectors, two_point_correlation
from physics.statistics.descriptors import CorrelationBasis


def random_cells(n, shape, *, seed=0, n_phases=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(n_phases, (n, *shape), generator=generator)


def correlations(phases, *, n_phases, max_lag, periodic=True):
    """The maps that a basis describes, from pairs of indicators lag by lag."""
    ndim = phases.ndim - 1
    maps = []
    for p, q in itertools.combinations_with_replacement(range(1, n_phases), 2):
        a, b = (phases == p).double(), (phases == q).double()
        whole = two_point_correlation(a, b, periodic=periodic)
        at = [
            lags.long() % n
            for lags, n in zip(lag_vectors((2 * max_lag + 1,) * ndim), whole.shape[1:], strict=True)
        ]
        maps.append(whole[(slice(None), *at)])
    return torch.stack(maps, 1)


@pytest.mark.parametrize(
    ("n", "shape", "n_phases", "max_lag", "periodic"),
    [
        (12, (9, 12), 2, 4, True),
        (12, (9, 12), 3, 3, (True, False)),
        (60, (8, 8), 2, 1, True),
        (10, (6, 7, 8), 2, 2, False),
    ],
)
def test_all_directions_reconstruct_every_correlation(n, shape, n_phases, max_lag, periodic):
    phases = random_cells(n, shape, n_phases=n_phases)
    basis = CorrelationBasis.fit(
        phases, n_components=n - 1, max_lag=max_lag, n_phases=n_phases, periodic=periodic
    )
    expected = correlations(phases, n_phases=n_phases, max_lag=max_lag, periodic=periodic)
    found = basis.inverse_transform(basis.transform(phases))
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-10)
    assert float(basis.explained_variance_ratio.sum()) == pytest.approx(1)
    # The directions are those of the singular value decomposition.
    apart = expected.flatten(1) - expected.flatten(1).mean(0)
    spread = torch.linalg.svdvals(apart)[: len(basis.variance)]
    assert torch.allclose(basis.variance, spread.square() / (n - 1), rtol=1e-8)
    d = basis.components.directions
    assert torch.allclose(d.T @ d, torch.eye(d.shape[1], dtype=d.dtype), atol=1e-10)
    z = basis.transform(phases)
    assert torch.allclose(z.T @ z / (n - 1), torch.diag(basis.variance), atol=1e-10)


def test_few_directions_leave_the_least_error():
    phases = random_cells(30, (10, 10))
    exact = correlations(phases, n_phases=2, max_lag=3)
    errors = []
    for k in (1, 3, 9, 20):
        basis = CorrelationBasis.fit(phases, n_components=k, max_lag=3)
        error = (basis.inverse_transform(basis.transform(phases)) - exact).square().sum() / 29
        # What the directions leave out is the variance of the others.
        left = basis.total_variance * (1 - float(basis.explained_variance_ratio.sum()))
        assert float(error) == pytest.approx(left, rel=1e-8)
        errors.append(float(error))
    assert errors == sorted(errors, reverse=True)


def test_one_parameter_makes_a_curve():
    # Laminates of one period: the descriptor runs along a curve in the order of the fraction.
    x = torch.arange(32)
    cells = [(x % 16 < width)[:, None].expand(32, 16).roll(3 * width, 0) for width in range(1, 16)]
    basis = CorrelationBasis.fit(torch.stack(cells), n_components=5, max_lag=7)
    z = basis.transform(torch.stack(cells))
    steps = z[:, 0].diff()
    assert (steps > 0).all() or (steps < 0).all()
    assert float(basis.explained_variance_ratio[0]) > 0.9
    # Laminates between those of the fit lie between them.
    even = CorrelationBasis.fit(torch.stack(cells[::2]), n_components=3, max_lag=7)
    inner = even.transform(torch.stack(cells))[:, 0].diff()
    assert (inner > 0).all() or (inner < 0).all()


def test_families_of_unlike_length_fall_apart():
    field = RandomField(exact_fraction=True)
    point = {"volume_fraction": 0.5, "correlation_length_um": 0.0}
    cells = [
        field.simulate({**point, "correlation_length_um": length}, shape=(40, 40), seed=k, n=20)
        for k, length in enumerate((2.0, 4.0))
    ]
    phases = torch.from_numpy(np.stack([c.phases for family in cells for c in family]))
    z = CorrelationBasis.fit(phases, n_components=2, max_lag=8).transform(phases)[:, 0]
    low, high = sorted((z[:20], z[20:]), key=lambda part: float(part.mean()))
    assert low.max() < high.min()


def test_shifts_and_inversion_change_nothing_but_a_turn_does():
    phases = random_cells(10, (12, 12))
    phases[:, :, ::2] = phases[:, :, 1::2]
    basis = CorrelationBasis.fit(phases, n_components=6, max_lag=4)
    z = basis.transform(phases)
    assert torch.allclose(basis.transform(phases.roll((5, 3), (1, 2))), z, atol=1e-12)
    assert torch.allclose(basis.transform(phases.flip((1, 2))), z, atol=1e-12)
    turned = basis.transform(phases.transpose(1, 2))
    assert (turned - z).norm(dim=1).min() > 0.1 * z.norm(dim=1).mean()


def test_signs_and_numbers_are_those_of_the_ensemble():
    phases = random_cells(20, (9, 10))
    one = CorrelationBasis.fit(phases, n_components=8, max_lag=3)
    two = CorrelationBasis.fit(phases.flip(0).roll(2, 2), n_components=8, max_lag=3)
    assert torch.allclose(one.components.directions, two.components.directions, atol=1e-8)
    assert torch.allclose(one.transform(phases), two.transform(phases), atol=1e-8)
    largest = one.components.directions.abs().argmax(0)
    assert (one.components.directions.gather(0, largest[None]) > 0).all()


@pytest.mark.parametrize("n_phases", [2, 3])
def test_fractions_give_what_labels_give_and_gradients_flow(n_phases):
    phases = random_cells(12, (8, 9), n_phases=n_phases)
    hot = torch.stack([phases == p for p in range(n_phases)], 1).double()
    basis = CorrelationBasis.fit(phases, n_components=3, max_lag=2)
    assert torch.allclose(basis.transform(hot), basis.transform(phases), atol=1e-12)
    if n_phases == 2:
        assert torch.equal(basis.transform(phases == 1), basis.transform(phases))
    soft = (0.8 * hot[:1] + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(basis.transform, (soft,))


def test_a_larger_structure_has_the_descriptor_of_its_lags():
    cell = random_cells(1, (10, 10), seed=3)
    basis = CorrelationBasis.fit(random_cells(12, (10, 10)), n_components=4, max_lag=3)
    assert torch.allclose(basis.transform(cell.repeat(1, 2, 3)), basis.transform(cell), atol=1e-12)


def test_saved_and_loaded_it_gives_the_same(tmp_path):
    phases = random_cells(15, (8, 10, 9), n_phases=3)
    basis = CorrelationBasis.fit(phases, n_components=4, max_lag=2, periodic=(True, False, True))
    folder = basis.save(tmp_path / "basis")
    again = CorrelationBasis.load(folder)
    assert torch.equal(again.transform(phases), basis.transform(phases))
    assert torch.equal(again.explained_variance_ratio, basis.explained_variance_ratio)
    assert again.pairs == [(1, 1), (1, 2), (2, 2)]
    assert again.periodic == (True, False, True)
    tensors = folder / "correlation-basis.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        CorrelationBasis.load(folder)


def test_bad_input_is_refused():
    phases = random_cells(6, (8, 8))
    with pytest.raises(DataError, match="n_components from 1 to 5, one below the number"):
        CorrelationBasis.fit(phases, n_components=6)
    with pytest.raises(DataError, match="max_lag from 0 to 3"):
        CorrelationBasis.fit(phases, n_components=2, max_lag=4)
    with pytest.raises(DataError, match="two or more phases"):
        CorrelationBasis.fit(torch.zeros(4, 8, 8, dtype=torch.long), n_components=2)
    with pytest.raises(DataError, match="unlike S2, got 4 alike"):
        CorrelationBasis.fit(phases[:1].repeat(4, 1, 1), n_components=2)
    with pytest.raises(DataError, match="2 or 3 space axes, got torch"):
        CorrelationBasis.fit(phases[:, 0], n_components=2)
    basis = CorrelationBasis.fit(phases, n_components=2)
    with pytest.raises(DataError, match="2 axes and at most 2 phases"):
        basis.transform(phases + 1)
    with pytest.raises(DataError, match="max_lag from 0 to 1"):
        basis.transform(phases[:, :4, :4])
    with pytest.raises(DataError, match="descriptors of 2 numbers, got 3"):
        basis.inverse_transform(torch.zeros(1, 3))
