"""A part of the data: a narrower window moves the bounds, a held-out cell leaves a hole in it."""

import numpy as np
import pytest

from microstructures import (
    DataError,
    Microstructure,
    MicrostructureDataset,
    Parameter,
    ProcessSpace,
)
from studies.training_window import training_part

SPACE = ProcessSpace(
    [Parameter("time_h", "h", 1.0, 100.0, "log"), Parameter("temperature_k", "K", 600.0, 700.0)]
)
POINTS = [(time, temperature) for time in (1.0, 10.0, 100.0) for temperature in (600, 650, 700)]


@pytest.fixture(scope="module")
def data():
    """Nine cells over a grid of conditions, and one whose time is unknown."""
    processes = [{"time_h": time, "temperature_k": kelvin} for time, kelvin in POINTS]
    processes.append({"time_h": None, "temperature_k": 650.0})
    cells = [Microstructure(np.eye(4, dtype=np.uint8), process=process) for process in processes]
    return MicrostructureDataset.from_structures(cells, SPACE)


def conditions(part):
    return {(part[k].process["time_h"], part[k].process["temperature_k"]) for k in range(len(part))}


def test_a_narrower_window_is_the_models_window(data):
    part = training_part(data, window={"time_h": [1, 20]}, held_out={})
    assert conditions(part) == {p for p in POINTS if p[0] < 20}
    assert (part.space.parameters[0].high, part.space.parameters[1].high) == (20, 700)
    assert part.process_units.max() <= 1
    assert part.digest != data.subset([0, 1, 2, 3, 4, 5]).digest


def test_a_held_out_cell_leaves_the_window_as_it_is(data):
    cell = {"time_h": [5, 50], "temperature_k": [640, 660]}
    part = training_part(data, window={}, held_out=cell)
    assert conditions(part) == {p for p in POINTS if p != (10.0, 650)} | {(None, 650)}
    assert part.space == data.space


@pytest.mark.parametrize(
    ("window", "held_out", "words"),
    [
        ({"pressure": [0, 1]}, {}, "pressure"),
        ({"time_h": [1, 200]}, {}, "time_h between 1 and 100"),
        ({"time_h": [20, 2]}, {}, "swap"),
        ({"time_h": [2, 5]}, {}, "found none in time_h=2:5"),
        ({}, {"temperature_k": [610, 620]}, "hold out in temperature_k=610:620"),
        ({"time_h": [1, 5]}, {"time_h": [1, 5]}, "samples to train on"),
    ],
)
def test_ranges_without_samples_are_refused(data, window, held_out, words):
    with pytest.raises(DataError, match=words):
        training_part(data, window=window, held_out=held_out)


def test_nothing_said_is_the_data_itself(data):
    assert training_part(data, window={}, held_out={}) is data
