"""The `bracket=` keyword: continuum bounds through the public functions."""

import pytest
import torch

from microstructures import DataError
from physics import IsotropicElastic, effective_conductivity, effective_stiffness

SOFT = IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.3)
STIFF = IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.2)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("space", [(12, 11), (5, 6, 4)])
def test_the_continuum_bracket_encloses_finer_voxels_and_the_discrete_one_does_not(space):
    phases = noise(2, *space)
    found = effective_stiffness(phases, [SOFT, STIFF], bracket=True)
    assert found.level == "continuum"
    torch.testing.assert_close(found.value, 0.5 * (found.lower + found.upper))
    finer = phases
    for axis in range(1, phases.ndim):
        finer = finer.repeat_interleave(2, axis)
    truth = effective_stiffness(finer, [SOFT, STIFF], scheme="q1", tolerance=1e-6).value
    assert torch.linalg.eigvalsh(truth - found.lower).min() > 0.0
    assert torch.linalg.eigvalsh(found.upper - truth).min() > 0.0
    discrete = effective_stiffness(phases, [SOFT, STIFF], scheme="q1")
    assert discrete.level == "discrete"
    assert torch.linalg.eigvalsh(truth - discrete.lower).min() < 0.0


def test_refinement_narrows_what_is_too_wide_and_says_what_it_reached():
    phases = torch.stack((noise(16, 16), torch.zeros(16, 16, dtype=torch.long)))
    wide = effective_conductivity(phases, [1.0, 10.0], bracket=True)
    narrow = effective_conductivity(phases, [1.0, 10.0], bracket=True, bracket_tolerance=0.12)
    assert wide.width is not None
    assert narrow.width is not None
    assert narrow.refinement is not None
    assert float(wide.width[0]) > 0.12 >= float(narrow.width[0])
    # The homogeneous cell is exact as it is and stays as it was.
    assert narrow.refinement.tolist()[1] == 1
    assert narrow.refinement.tolist()[0] > 1
    out_of_reach = effective_conductivity(phases, [1.0, 10.0], bracket=True, bracket_tolerance=1e-9)
    assert out_of_reach.width is not None
    assert float(out_of_reach.width[0]) > 1e-9


def test_a_load_that_insulators_cut_off_has_no_lower_bound_above_zero():
    phases = noise(1, 24, 24)
    found = effective_conductivity(phases, [1.0, 0.0], bracket=True)
    assert float(found.lower.abs().max()) < 1e-6
    assert torch.linalg.eigvalsh(found.upper - found.lower).min() > 0.0


def test_settings_that_do_not_go_with_a_bracket_are_named():
    phases = noise(1, 4, 4)
    with pytest.raises(DataError, match="bracket_tolerance"):
        effective_stiffness(phases, [SOFT, STIFF], bracket_tolerance=0.1)
    with pytest.raises(DataError, match="displacement"):
        effective_conductivity(
            phases, [1.0, 2.0], bracket=True, displacement=torch.zeros(1, 2, 1, 4, 4)
        )
    with pytest.raises(DataError, match="eigenstrain"):
        effective_stiffness(phases, [SOFT, STIFF], bracket=True, eigenstrain=[1e-5, 0.0])
    soft = torch.full((1, 2, 4, 4), 0.5, requires_grad=True)
    with pytest.raises(DataError, match="detach"):
        effective_stiffness(soft, [SOFT, STIFF], bracket=True)
