"""Given voxels: where they lie, what nets see of them, noise fitted to them."""

import numpy as np
import pytest
import torch

from generators.given_voxels import check_given, fit_noise, pin_given, place_window, show_given
from microstructures import DataError, Microstructure


def test_a_window_lies_in_the_middle_or_where_it_is_put():
    window = np.arange(6).reshape(2, 3) % 3
    middle = place_window(window, (6, 7))
    assert (middle[2:4, 2:5].numpy() == window).all()
    assert int((middle >= 0).sum()) == 6
    corner = place_window(Microstructure(window), (6, 7), corner=(4, 0))
    assert (corner[4:, :3].numpy() == window).all()
    assert place_window(np.zeros((2, 2, 2), int), (4, 4, 4)).shape == (4, 4, 4)


@pytest.mark.parametrize(
    ("shape", "corner"), [((1, 8), None), ((8, 8), (7, 0)), ((8, 8), (-1, 0)), ((8, 8, 8), None)]
)
def test_a_window_that_does_not_fit_is_refused(shape, corner):
    with pytest.raises(DataError, match="fits into shape"):
        place_window(np.zeros((2, 3), int), shape, corner=corner)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(4, 5, dtype=torch.int64), "shape"),
        (torch.zeros(4, 4), "whole-number"),
        (torch.full((4, 4), 3), "from 0 to 2"),
        (np.full((4, 4), -2), "from 0 to 2"),
    ],
)
def test_given_voxels_of_another_shape_or_phase_are_refused(given, words):
    with pytest.raises(DataError, match=words):
        check_given(given, (4, 4), 3)


def test_all_free_means_nothing_given():
    assert check_given(torch.full((4, 4), -1), (4, 4), 2) is None
    assert check_given(None, (4, 4), 2) is None
    logits = torch.randn(1, 2, 4, 4)
    assert pin_given(logits, None) is logits
    assert show_given(logits, None, 3.0) is logits


def test_pinned_phases_are_certain_and_the_others_untouched():
    given = place_window(np.array([[0, 2], [1, 1]]), (4, 4))
    logits = torch.randn(2, 3, 4, 4)
    pinned = pin_given(logits, given)
    known = given >= 0
    assert torch.equal(pinned[:, :, ~known], logits[:, :, ~known])
    assert (pinned.softmax(1).argmax(1)[:, known] == given[known]).all()
    assert (pinned.softmax(1).amax(1)[:, known] == 1).all()
    shown = show_given(logits, given, 10.0)
    assert torch.equal(shown[:, :, ~known], logits[:, :, ~known])
    assert torch.equal(shown.argmax(1)[:, known], given[known].expand(2, -1))


def test_fitted_noise_agrees_with_the_given_voxels_and_stays_typical():
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(3, 1, 16, 16, generator=generator)]
    window = np.zeros((8, 8), int)
    window[:4] = 1
    given = place_window(window, (16, 16))
    kernel = torch.ones(1, 1, 3, 3) / 3

    def render(fields):
        padded = torch.nn.functional.pad(fields[0], (1, 1, 1, 1), mode="circular")
        smooth = 3 * torch.nn.functional.conv2d(padded, kernel)
        return torch.cat([-smooth, smooth], 1)

    known = given >= 0
    (fitted,) = fit_noise(render, noise, given)

    def agreement(field):
        return (render([field]).argmax(1)[:, known] == given[known]).float().mean()

    assert agreement(noise[0]) < 0.7
    assert agreement(fitted) > 0.95
    spread = [field.square().flatten(1).mean(1).sqrt() for field in (fitted, noise[0])]
    assert torch.allclose(*spread, rtol=1e-4)
    alone = fit_noise(render, [noise[0][1:2]], given)[0]
    assert torch.allclose(alone[0], fitted[1], atol=1e-4)
