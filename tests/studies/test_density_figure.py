"""The figure of the training density: panels, marks, and when there is nothing to draw."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from generators.training_density import TrainingDensity
from microstructures import DataError, Parameter, ProcessSpace
from studies.density_figure import density_figure
from studies.figures import DESIGN, TARGET

KIND = Parameter("kind", "-", scale="choice", choices=("x", "y"))
NUMBERS = [Parameter("a", "-", 0.0, 2.0), Parameter("b_h", "h", 1.0, 100.0, "log")]


def drawn(space, asked):
    units = torch.rand(40, len(space), generator=torch.Generator().manual_seed(0))
    uri = density_figure(space, TrainingDensity.fit(units, space), asked)
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    )


def inked(image, colour):
    """Pixels of a colour."""
    wanted = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return int((image == wanted).all(2).sum())


@pytest.mark.parametrize("space", [NUMBERS, [*NUMBERS, KIND], [NUMBERS[0], KIND]])
def test_points_asked_for_are_marked_and_extrapolated_ones_stand_out(space):
    space = ProcessSpace(space)
    inside, outside = [{"a": 1.0, "b_h": 10.0}, {"a": 2.5, "b_h": 10.0}]
    asked = [{k: v for k, v in p.items() if k in space.names} for p in (inside, outside)]
    one, both = drawn(space, asked[:1]), drawn(space, asked)
    assert inked(one, TARGET) == 0 < inked(one, DESIGN)
    assert min(inked(both, TARGET), inked(both, DESIGN)) > 0


def test_nothing_is_drawn_without_density_or_numbers():
    space = ProcessSpace([KIND])
    density = TrainingDensity.fit(torch.full((4, 1), 0.25), space)
    assert density_figure(space, density, [{"kind": "x"}]) == ""
    assert density_figure(ProcessSpace(NUMBERS), None, []) == ""


def test_points_far_outside_are_refused():
    with pytest.raises(DataError, match="half a window"):
        drawn(ProcessSpace(NUMBERS), [{"a": 9.0}])
