import numpy as np
import pytest

from microstructures import DataError, Microstructure

SHAPES = [(4, 6), (3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint32])
def test_fractions_and_indicators_agree(shape, dtype):
    rng = np.random.default_rng(0)
    m = Microstructure(rng.integers(0, 3, shape).astype(dtype), phase_names=("a", "b", "c", "d"))
    assert m.phases.dtype == np.uint8
    assert m.shape == shape
    assert m.n_phases == 4
    assert m.periodic == (True,) * len(shape)
    assert m.volume_fractions.sum() == pytest.approx(1, abs=1e-15)
    assert m.indicators.shape == (4, *shape)
    np.testing.assert_array_equal(m.indicators.sum(0), 1)
    space = tuple(range(1, m.indicators.ndim))
    np.testing.assert_allclose(m.indicators.mean(space), m.volume_fractions, atol=1e-7)
    np.testing.assert_array_equal(m.indicators.argmax(0), m.phases)


def test_names_are_made_up_for_each_label():
    assert Microstructure(np.array([[0, 2]])).phase_names == ("phase 0", "phase 1", "phase 2")


def test_channels_travel_and_replace():
    m = Microstructure(np.zeros((2, 3), int), channels={"grey": np.ones((2, 3))}, process={"t": 1})
    more = m.with_channels(strain=np.zeros((3, 2, 3)), grey=np.zeros((2, 3)))
    assert set(more.channels) == {"grey", "strain"}
    assert more.channels["grey"].sum() == 0
    assert m.channels["grey"].sum() == 6
    assert more.process == {"t": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"phases": np.zeros(4, int)}, "2 or 3 axes"),
        ({"phases": np.zeros((2, 2, 2, 2), int)}, "2 or 3 axes"),
        ({"phases": np.zeros((0, 2), int)}, "2 or 3 axes"),
        ({"phases": np.zeros((2, 2))}, "integer"),
        ({"phases": np.full((2, 2), np.nan)}, "integer"),
        ({"phases": np.full((2, 2), -1)}, "from 0 to 255"),
        ({"phases": np.full((2, 2), 256)}, "from 0 to 255"),
        ({"voxel_size_um": 0.0}, "voxel_size_um"),
        ({"voxel_size_um": float("nan")}, "voxel_size_um"),
        ({"voxel_size_um": float("inf")}, "voxel_size_um"),
        ({"periodic": (True, False, True)}, "2 periodic flags"),
        ({"phase_names": ("a",)}, "name for each label"),
        ({"channels": {"grey": np.zeros((3, 2))}}, "grey"),
        ({"channels": {"grey": np.zeros(3)}}, "grey"),
    ],
)
def test_misfits_are_refused_by_name(arguments, words):
    with pytest.raises(DataError, match=words):
        Microstructure(**{"phases": np.array([[0, 1, 0], [1, 0, 1]]), **arguments})
