"""The learnt place in a bracket: between the bounds, near the truth, kept with the weights."""

import pytest
import torch

from physics.mechanics import IsotropicElastic, effective_stiffness
from surrogates import FieldSurrogate
from surrogates.bracket_place import BracketPlace, fitted_place, place_between
from surrogates.labels import LabelledCells, unsolved_labels
from surrogates.quantities import MaterialRange, Stiffness


def pair(contrast: float) -> list[IsotropicElastic]:
    return [
        IsotropicElastic(youngs_modulus_gpa=young, poisson_ratio=0.3) for young in (1.0, contrast)
    ]


def solved(blobs, n: int, *, seed: int) -> LabelledCells:
    """Return cells of contrast 2 to 200 with converged matrices."""
    drawn = MaterialRange(contrast=(2, 200), poisson_ratio=(0.3, 0.3))
    labels = unsolved_labels(blobs(n, seed=seed), Stiffness(), drawn, n_phases=2, seed=seed)
    truth = []
    for k in range(n):
        young = labels.moduli[k, 1] / labels.moduli[k, 1, 0]
        found = effective_stiffness(labels.phases[k : k + 1], pair(float(young[1])), tolerance=1e-5)
        # Young's modulus 1 and nu 0.3 give shear modulus 1 / 2.6.
        truth.append(found.value[0] * 2.6 * labels.moduli[k, 1, 0])
    return LabelledCells(labels.phases, labels.moduli, torch.stack(truth), labels.quantity)


@pytest.mark.parametrize("contrast", [3.0, 100.0])
def test_the_learnt_place_is_nearer_than_the_middle(surrogate, blobs, contrast):
    place = fitted_place(surrogate.net, solved(blobs, 24, seed=3))
    learnt = FieldSurrogate(surrogate.net, surrogate.familiarity, place)
    unseen = blobs(12, seed=4)
    truth = effective_stiffness(unseen, pair(contrast), tolerance=1e-5).value[:, 0, 0]
    errors = [
        (model.predict(unseen, pair(contrast)).effective[:, 0, 0] / truth - 1).abs().mean()
        for model in (learnt, surrogate)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_the_estimate_is_within_the_bracket_and_by_default_its_middle(surrogate, blobs):
    found = surrogate.predict(blobs(4, seed=5), pair(50.0))
    middle = (found.lower + found.upper) / 2
    assert torch.allclose(found.effective, middle, rtol=1e-12)
    one, contrast = torch.zeros(4, dtype=torch.bool), torch.full((4,), 50.0)
    for slope in (-0.3, 0.3):
        estimate = BracketPlace(0.0, slope).estimate(found.lower, found.upper, contrast, one)
        for gap in (found.upper - estimate, estimate - found.lower):
            assert torch.linalg.eigvalsh(gap).min() > -1e-9
        place = torch.sigmoid(slope * contrast[0].double().log())
        between = place_between(estimate, found.lower, found.upper)
        assert torch.allclose(between, place.expand(4), atol=1e-6)


def test_a_porous_cell_is_answered_by_its_only_bound(surrogate, blobs):
    materials = [
        IsotropicElastic(youngs_modulus_gpa=young, poisson_ratio=0.3) for young in (0.0, 1.0)
    ]
    found = surrogate.predict(blobs(2, seed=6), materials)
    assert torch.equal(found.effective, found.upper)


def test_the_place_is_saved_with_the_weights(surrogate, blobs, tmp_path):
    placed = FieldSurrogate(surrogate.net, surrogate.familiarity, BracketPlace(-3.0, 0.8, -0.2))
    again = FieldSurrogate.from_pretrained(placed.save_pretrained(tmp_path / "m"))
    assert again.place == placed.place
    cells = blobs(2, seed=7)
    found = [model.predict(cells, pair(20.0)).effective for model in (placed, again)]
    assert torch.equal(*found)
