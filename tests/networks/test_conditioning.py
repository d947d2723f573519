"""Process parameters as features: unknown values, choices, bounds."""

import math

import pytest
import torch

from microstructures import DataError, Parameter, ProcessSpace
from networks.conditioning import ProcessEmbedding, process_units

SPACE = ProcessSpace(
    [
        Parameter("time_h", "h", 1.0, 100.0, "log"),
        Parameter("cooling", "-", scale="choice", choices=("air", "water")),
    ]
)


def test_units_of_known_and_unknown_values():
    units = process_units(SPACE, [{"time_h": 10.0}, {"time_h": None, "cooling": "water"}])
    assert units[0, 0] == 0.5
    assert torch.isnan(units[0, 1])
    assert torch.isnan(units[1, 0])
    assert units[1, 1] == 0.75


def test_unknown_is_the_same_as_dropped_and_differs_from_every_value():
    torch.manual_seed(0)
    embed = ProcessEmbedding(SPACE, 8)
    value, unknown = torch.tensor([[0.3, 0.25]]), torch.tensor([[math.nan, 0.25]])
    drop = torch.tensor([[True, False]])
    assert torch.equal(embed(value, drop=drop), embed(unknown))
    assert not torch.allclose(embed(value), embed(unknown))


def test_choices_differ():
    torch.manual_seed(0)
    embed = ProcessEmbedding(SPACE, 8)
    assert not torch.allclose(
        embed(torch.tensor([[0.3, 0.25]])), embed(torch.tensor([[0.3, 0.75]]))
    )


def test_out_of_bounds_is_refused():
    with pytest.raises(DataError, match="time_h between 1 and 100"):
        process_units(SPACE, [{"time_h": 1000.0}])
