import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microstructures import DataError, Parameter, ProcessSpace

FAST = settings(deadline=None, derandomize=True, database=None, max_examples=150)
unit = st.floats(0, 1)
magnitude = st.floats(-1e12, 1e12)
positive = st.floats(1e-9, 1e12)


def bounds(values):
    pairs = st.tuples(values, values).map(sorted)
    return pairs.filter(lambda p: p[1] - p[0] > 1e-6 * max(1e-9, *map(abs, p)))


# Arguments of a Parameter; it is made in the test, since the type checks draw random numbers.
arguments = st.one_of(
    bounds(magnitude).map(lambda b: ("K", *b, "linear", ())),
    bounds(positive).map(lambda b: ("h", *b, "log", ())),
    st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 10**6)).map(
        lambda b: ("-", float(b[0]), float(b[0] + b[1]), "integer", ())
    ),
    st.lists(st.text(min_size=1), min_size=1, max_size=7, unique=True).map(
        lambda c: ("-", None, None, "choice", tuple(c))
    ),
)


@FAST
@given(arguments, unit)
def test_values_survive_the_unit_cube(given_arguments, u):
    parameter = Parameter("p", *given_arguments)
    value = parameter.from_unit(u)
    if parameter.scale != "choice":
        assert parameter.low <= value <= parameter.high
    back = parameter.to_unit(value)
    assert 0 <= back <= 1
    again = parameter.from_unit(back)
    if parameter.scale in ("choice", "integer"):
        assert again == value
        assert type(again) is type(value)
    else:
        assert back == pytest.approx(u, abs=1e-8)
        assert again == pytest.approx(value, rel=1e-9, abs=1e-9 * (parameter.high - parameter.low))


@FAST
@given(arguments)
def test_bounds_are_the_corners_of_the_cube(given_arguments):
    parameter = Parameter("p", *given_arguments)
    if parameter.scale == "choice":
        assert parameter.from_unit(0.0) == parameter.choices[0]
        assert parameter.from_unit(1.0) == parameter.choices[-1]
    else:
        assert parameter.from_unit(0.0) == pytest.approx(parameter.low, rel=1e-12)
        assert parameter.from_unit(1.0) == pytest.approx(parameter.high, rel=1e-12)
        assert parameter.to_unit(parameter.low) == 0
        assert parameter.to_unit(parameter.high) == 1


@FAST
@given(bounds(magnitude), unit, unit)
def test_order_is_kept(b, u, v):
    parameter = Parameter("p", "K", *b)
    low, high = sorted((u, v))
    assert parameter.from_unit(low) <= parameter.from_unit(high)


@FAST
@given(st.lists(arguments, max_size=5), st.data())
def test_a_space_survives_json(parts, data):
    space = ProcessSpace([Parameter(f"p{k}", *part) for k, part in enumerate(parts)])
    assert ProcessSpace.from_json(json.loads(json.dumps(space.to_json()))) == space
    u = [data.draw(unit | st.just(math.nan)) for _ in space]
    process = space.from_unit(u)
    assert [process[name] is None for name in space.names] == [math.isnan(x) for x in u]
    back = space.to_unit(process)
    assert [math.isnan(x) for x in back] == [math.isnan(x) for x in u]


def test_every_integer_has_its_share():
    parameter = Parameter("n", "-", 0.0, 3.0, "integer")
    assert [parameter.from_unit(parameter.to_unit(k)) for k in range(4)] == [0, 1, 2, 3]


def test_log_scale_halves_decades_and_spans_all_magnitudes():
    space = ProcessSpace([Parameter("time_h", "h", 1.0, 100.0, "log")])
    assert space.from_unit([0.5])["time_h"] == pytest.approx(10)
    wide = Parameter("x", "-", 1e-300, 1e300, "log")
    assert wide.from_unit(0.5) == pytest.approx(1)
    assert wide.to_unit(1.0) == pytest.approx(0.5)


def test_missing_and_none_are_unknown():
    space = ProcessSpace([Parameter("a", "K", 0.0, 1.0), Parameter("b", "K", 0.0, 1.0)])
    assert [math.isnan(u) for u in space.to_unit({"a": None})] == [True, True]
    assert space.from_unit([math.nan, 1.0]) == {"a": None, "b": 1.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", "K", 0.0, 1.0), "name"),
        (("t", "", 0.0, 1.0), "unit"),
        (("t", "K", 1.0, 0.0), "swap"),
        (("t", "K", 1.0, 1.0), "swap"),
        (("t", "K", None, 1.0), "bounds"),
        (("t", "K", 0.0, math.nan), "bounds"),
        (("t", "K", 0.0, math.inf), "bounds"),
        (("t", "K", -1.7e308, 1.7e308), "closer"),
        (("t", "K", 0.0, 1.0, "log"), "positive"),
        (("t", "K", 0.5, 3.0, "integer"), "whole"),
        (("t", "-", None, None, "choice"), "choices"),
        (("t", "-", None, None, "choice", ("a", "a")), "distinct"),
        (("t", "-", None, None, "choice", ("a", "")), "choices"),
    ],
)
def test_impossible_parameters_are_refused(arguments, words):
    with pytest.raises(DataError, match=words):
        Parameter(*arguments)


TIME = Parameter("time_h", "h", 1e-7, 1e3, "log")
COOLING = Parameter("cooling", "-", scale="choice", choices=("air", "water"))
COUNT = Parameter("n", "-", 1.0, 5.0, "integer")


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (TIME, 0.0),
        (TIME, -1e-9),
        (TIME, 1001.0),
        (TIME, math.nan),
        (TIME, math.inf),
        (TIME, "long"),
        (TIME, True),
        (COOLING, "oil"),
        (COOLING, 0),
        (COUNT, 2.5),
        (COUNT, 6),
    ],
)
def test_values_outside_are_refused_by_name(parameter, value):
    with pytest.raises(DataError, match=parameter.name):
        parameter.to_unit(value)


@pytest.mark.parametrize("u", [-0.1, 1.1, math.nan, math.inf])
def test_coordinates_outside_the_cube_are_refused(u):
    for parameter in (TIME, COOLING, COUNT):
        with pytest.raises(DataError, match="unit coordinate"):
            parameter.from_unit(u)


def test_spaces_name_what_does_not_belong():
    space = ProcessSpace([TIME])
    with pytest.raises(DataError, match="pressure"):
        space.to_unit({"pressure": 1.0})
    with pytest.raises(DataError, match="1 unit coordinates"):
        space.from_unit([0.1, 0.2])
    with pytest.raises(DataError, match="distinct"):
        ProcessSpace([TIME, TIME])


@pytest.mark.parametrize(
    "entries",
    [
        [{"name": "t"}],
        [{"name": "t", "unit": "K", "colour": "red"}],
        [{"name": "t", "unit": "K", "low": "cold", "high": "hot"}],
        [{"name": "t", "unit": "K", "low": 0.0, "high": 1.0, "scale": "cubic"}],
        [{"name": "t", "unit": "-", "scale": "choice", "choices": "ab"}],
        [{"name": "t", "unit": "-", "scale": "choice", "choices": [1, 2]}],
    ],
)
def test_foreign_json_is_no_space(entries):
    with pytest.raises(DataError):
        ProcessSpace.from_json(entries)
