"""The gate passes 19 of 20 unseen real samples and stops structures that are wrong."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from microstructures import CheckpointError, DataError, Microstructure, Parameter, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from physics.processes.random_field import RandomField
from physics.statistics import CorrelationGate
from physics.statistics.gate import FEWEST_SAMPLES, MOST_PARAMETERS

SHAPE = (48, 48)
FAMILY = RandomField(
    covariance="oscillating",
    exact_fraction=True,
    voxel_size_um=0.5,
    fraction_bounds=(0.3, 0.7),
    length_bounds_um=(3.0, 6.0),
)


def draw(n, *, seed):
    """Cells at random process points: coarse ones scatter much more than fine ones."""
    units = np.random.default_rng(seed).random((n, 2))
    points = [FAMILY.space.from_unit(u) for u in units.tolist()]
    return FAMILY.simulate(points, shape=SHAPE, seed=seed)


def labels(cells):
    return np.stack([c.phases for c in cells])


@pytest.fixture(scope="module")
def gate():
    return CorrelationGate.fit(
        MicrostructureDataset.from_structures(draw(1200, seed=1), FAMILY.space)
    )


@pytest.fixture(scope="module")
def fresh():
    return draw(600, seed=3)


def moved(cells, **factors):
    """Processes with some values multiplied, kept inside the space."""
    low = {p.name: p.low for p in FAMILY.space}
    high = {p.name: p.high for p in FAMILY.space}
    return [
        {
            k: v * factors.get(k, 1)
            if v * factors.get(k, 1) <= high[k]
            else max(v / factors.get(k, 1), low[k])
            for k, v in c.process.items()
        }
        for c in cells
    ]


def test_unseen_real_samples_pass_everywhere(gate, fresh):
    passed = gate.score(fresh) <= 1
    assert 0.93 <= float(passed.double().mean()) <= 0.975
    for name in FAMILY.space.names:
        order = np.argsort([c.process[name] for c in fresh])
        for third in np.array_split(order, 3):
            assert float(passed[torch.from_numpy(third)].double().mean()) > 0.88
    assert gate.about["held_out_by"] == "specimen"


def test_wrong_structures_fail(gate, fresh):
    own = [c.process for c in fresh]
    noise = np.random.default_rng(0).permuted(labels(fresh).reshape(600, -1), axis=1)
    assert (gate.score(noise.reshape(-1, *SHAPE), own) > 1).all()
    wrong_fraction = [
        {**c.process, "volume_fraction": c.process["volume_fraction"] + (0.05 if k % 2 else -0.05)}
        for k, c in enumerate(fresh)
    ]
    inside = [k for k, p in enumerate(wrong_fraction) if 0.3 <= p["volume_fraction"] <= 0.7]
    scores = gate.score([fresh[k] for k in inside], [wrong_fraction[k] for k in inside])
    assert float((scores > 1).double().mean()) > 0.97
    scores = gate.score(fresh, moved(fresh, correlation_length_um=1.5))
    assert float((scores > 1).double().mean()) > 0.9
    swapped = gate.score(1 - labels(fresh), own)
    uneven = torch.tensor([abs(p["volume_fraction"] - 0.5) > 0.05 for p in own])
    assert (swapped[uneven] > 1).all()


def test_an_anisotropic_structure_fails_although_its_radial_s2_fits(gate):
    stretched = RandomField(
        covariance="oscillating", exact_fraction=True, voxel_size_um=0.5, anisotropy=2.0
    )
    point = {"volume_fraction": 0.5, "correlation_length_um": 3.2}
    cells = stretched.simulate(point, shape=SHAPE, seed=0, n=40)
    wide = {"volume_fraction": 0.5, "correlation_length_um": 4.5}
    assert float((gate.score(labels(cells), wide) > 1).double().mean()) > 0.9


def test_the_band_holds_most_real_curves(gate, fresh):
    inside = []
    for cell in fresh[:150]:
        band = gate.band(cell.process)
        curve = gate.curve([cell])[0].numpy()
        inside.append((curve >= band.lower) & (curve <= band.upper))
    # The fraction is exact here, so the first lag is a matter of round-off.
    share = np.mean(inside, axis=0)[1:]
    assert share.min() > 0.88
    assert share.mean() > 0.92
    assert band.lag_um[1] == pytest.approx(0.5)
    assert band.expected[0] == pytest.approx(cell.process["volume_fraction"], abs=0.01)


def test_unknown_values_widen_the_band(gate, fresh):
    known = {"volume_fraction": 0.5, "correlation_length_um": 4.0}
    sharp = gate.band(known)
    vague = gate.band({"volume_fraction": 0.5, "correlation_length_um": None})
    nothing = gate.band({})
    width = [float((b.upper - b.lower)[4]) for b in (sharp, vague, nothing)]
    assert width[0] < width[1] < width[2]


@pytest.mark.parametrize("n_unknown", [0, 1, 2])
def test_nineteen_of_twenty_real_samples_pass_whatever_is_unknown(gate, fresh, n_unknown):
    # Binomial errors of the mark (1200 held-out samples) and of the count, three of them.
    error = math.sqrt(0.95 * 0.05 * (1 / 1200 + 1 / len(fresh)))
    for names in itertools.combinations(FAMILY.space.names, n_unknown):
        process = [{**c.process, **dict.fromkeys(names)} for c in fresh]
        passed = (gate.score(fresh, process) <= 1).double()
        assert abs(float(passed.mean()) - 0.95) < 3 * error, names
        for name in FAMILY.space.names:
            order = np.argsort([c.process[name] for c in fresh])
            for third in np.array_split(order, 3):
                assert float(passed[torch.from_numpy(third)].mean()) > 0.88, names


def test_with_unknown_values_other_structures_fail_all_the_same(gate, fresh):
    noise = np.random.default_rng(0).permuted(labels(fresh).reshape(600, -1), axis=1)
    assert (gate.score(noise.reshape(-1, *SHAPE), {}) > 1).all()
    other = RandomField(exact_fraction=True, voxel_size_um=0.5, length_bounds_um=(0.5, 2.0))
    points = [other.space.from_unit(u) for u in np.random.default_rng(1).random((100, 2)).tolist()]
    points = [{**p, "volume_fraction": 0.3 + 0.4 * k / 99} for k, p in enumerate(points)]
    scores = gate.score(labels(other.simulate(points, shape=SHAPE, seed=4)), {})
    assert float((scores > 1).double().mean()) > 0.75
    # What is known still counts: twice the length with the fraction unknown.
    wrong = [
        {"correlation_length_um": p["correlation_length_um"]}
        for p in moved(fresh, correlation_length_um=1.5)
    ]
    assert float((gate.score(fresh, wrong) > 1).double().mean()) > 0.8


def test_marks_for_unknown_values_of_many_parameters_and_of_gates_without(fresh, tmp_path):
    dials = [Parameter(f"dial_{k}", "-", 0, 1) for k in range(MOST_PARAMETERS - 1)]
    space = ProcessSpace([*FAMILY.space, *dials])
    rng = np.random.default_rng(0)
    cells = [
        Microstructure(
            c.phases,
            voxel_size_um=c.voxel_size_um,
            process={**c.process, **{d.name: float(rng.random()) for d in dials}},
        )
        for c in fresh[:60]
    ]
    gate = CorrelationGate.fit(MicrostructureDataset.from_structures(cells, space))
    singles = {frozenset({name}) for name in space.names}
    assert set(gate.unknown_quantiles) == {*singles, frozenset(space.names)}
    two = {**cells[0].process, "dial_0": None, "dial_1": None}
    largest = max(gate.unknown_quantiles.values())
    assert largest > gate.quantile
    without = CorrelationGate.load(
        dataclasses.replace(gate, unknown_quantiles={}).save(tmp_path / "gate")
    )
    ratio = without.score(cells[:1], two) / gate.score(cells[:1], two)
    assert float(ratio) == pytest.approx(largest / gate.quantile)
    assert torch.equal(without.score(cells), gate.score(cells))


def test_one_process_or_one_each_and_any_kind_of_labels(gate, fresh):
    cells = fresh[:5]
    each = gate.score(cells)
    by_labels = gate.score(labels(cells), [c.process for c in cells])
    alone = gate.score(torch.from_numpy(labels(cells[:1])), cells[0].process)
    assert torch.allclose(torch.cat([by_labels, alone]), torch.cat([each, each[:1]]), rtol=1e-6)
    by_one = gate.score(cells, cells[0].process)
    assert by_one[0] == pytest.approx(float(each[0]))


def test_saved_and_loaded_it_scores_the_same(gate, fresh, tmp_path):
    folder = gate.save(tmp_path / "gate")
    again = CorrelationGate.load(folder)
    assert torch.equal(gate.score(fresh[:20]), again.score(fresh[:20]))
    assert torch.equal(gate.score(fresh[:20], {}), again.score(fresh[:20], {}))
    assert np.array_equal(gate.band({}).upper, again.band({}).upper)
    assert again.about == gate.about
    assert sum(f.stat().st_size for f in folder.iterdir()) < 150_000
    tensors = folder / "gate.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        CorrelationGate.load(folder)


def test_the_same_data_make_the_same_gate(fresh):
    data = MicrostructureDataset.from_structures(fresh[:200], FAMILY.space)
    one, two = CorrelationGate.fit(data), CorrelationGate.fit(data)
    assert torch.equal(one.score(fresh[200:300]), two.score(fresh[200:300]))


SPACE = ProcessSpace(
    [
        Parameter("temperature_c", "C", 700, 1000),
        Parameter("cooling", "-", scale="choice", choices=("air", "water")),
    ]
)


def crops(treatment, *, specimens, seed, per_specimen=20):
    """Three phases cut from two levels of a field; hotter is coarser, water has less of phase 2."""
    temperature, cooling = treatment
    field = RandomField().field(
        2 + (temperature - 700) / 100, shape=(64, 64), seed=seed, n=specimens
    )
    upper = 1.2 if cooling == "water" else 0.4
    maps = ((field > -0.4).to(torch.uint8) + (field > upper).to(torch.uint8)).numpy()
    corners = np.random.default_rng(seed).integers(0, 32, (specimens, per_specimen, 2))
    process = {"temperature_c": temperature, "cooling": cooling}
    return [
        (
            Microstructure(
                maps[k][i : i + 32, j : j + 32],
                periodic=(False,),
                process=process,
                phase_names=("a", "b", "c"),
            ),
            f"{treatment}-{seed}-{k}",
        )
        for k in range(specimens)
        for i, j in corners[k]
    ]


TREATMENTS = [(720, "air"), (800, "air"), (950, "air"), (720, "water"), (850, "water")]


def test_few_treatments_three_phases_crops_and_a_choice():
    made = [pair for k, t in enumerate(TREATMENTS) for pair in crops(t, specimens=6, seed=k)]
    structures, specimens = zip(*made, strict=True)
    data = MicrostructureDataset.from_structures(list(structures), SPACE, specimens=list(specimens))
    gate = CorrelationGate.fit(data)
    assert gate.curves.pairs == [(1, 1), (1, 2), (2, 2)]
    new = [pair[0] for k, t in enumerate(TREATMENTS) for pair in crops(t, specimens=8, seed=50 + k)]
    assert float((gate.score(new) <= 1).double().mean()) > 0.82
    # At one temperature the quenches differ by their third phase; crops this small overlap.
    other = [
        {**c.process, "cooling": "air" if c.process["cooling"] == "water" else "water"} for c in new
    ]
    assert float((gate.score(new, other) > 1).double().mean()) > 0.4
    # A treatment that was not seen is allowed for by the uncertainty of the expectation.
    unseen = [pair[0] for pair in crops((880, "air"), specimens=8, seed=90)]
    assert float((gate.score(unseen) <= 1).double().mean()) > 0.8
    one_specimen = MicrostructureDataset.from_structures(
        list(structures[:60]), SPACE, specimens=["only"] * 60
    )
    assert CorrelationGate.fit(one_specimen).about["held_out_by"] == "sample"
    band = gate.band({"temperature_c": 800, "cooling": None}, pair=(1, 2))
    assert np.all((band.lower <= band.expected) & (band.expected <= band.upper))


def test_three_dimensions():
    process = RandomField(fraction_bounds=(0.3, 0.7), length_bounds_um=(2.0, 4.0))
    rng = np.random.default_rng(0)
    points = [process.space.from_unit(u) for u in rng.random((120, 2)).tolist()]
    cells = process.simulate(points, shape=(16, 16, 16), seed=0)
    gate = CorrelationGate.fit(MicrostructureDataset.from_structures(cells, process.space))
    assert float((gate.score(cells) <= 1).double().mean()) > 0.9
    noise = rng.permuted(labels(cells).reshape(120, -1), axis=1).reshape(-1, 16, 16, 16)
    assert (gate.score(noise, [c.process for c in cells]) > 1).all()


def test_bad_input_is_refused(gate, fresh):
    own = fresh[0].process
    few = draw(FEWEST_SAMPLES - 1, seed=0)
    with pytest.raises(DataError, match="at least 40 samples"):
        CorrelationGate.fit(MicrostructureDataset.from_structures(few, FAMILY.space))
    data = MicrostructureDataset.from_structures(draw(40, seed=0), FAMILY.space)
    with pytest.raises(DataError, match="held_out"):
        CorrelationGate.fit(data, held_out=0.9)
    with pytest.raises(DataError, match=r"shape \(48, 48\) or larger"):
        gate.score(np.zeros((1, 32, 32), int), own)
    with pytest.raises(DataError, match="labels from 0 to 1"):
        gate.score(np.full((1, 48, 48), 2), own)
    with pytest.raises(DataError, match="volume_fraction between"):
        gate.score(fresh[:1], {"volume_fraction": 0.9})
    with pytest.raises(DataError, match="one process or 2"):
        gate.score(fresh[:2], [own] * 3)
    with pytest.raises(DataError, match="pass process="):
        gate.score(labels(fresh[:2]))
    with pytest.raises(DataError, match=r"voxels of 0\.5 um"):
        gate.score([Microstructure(fresh[0].phases, voxel_size_um=1.0)], own)
    with pytest.raises(DataError, match="pair among"):
        gate.band(own, pair=(0, 0))
    assert math.isfinite(float(gate.score(np.zeros((1, 48, 48), int), own)))
