"""Measured properties: inside their bounds, by specimen, covered, in any unit, and refused."""

from dataclasses import replace

import pytest
import torch

from microstructures import (
    CheckpointError,
    DataError,
    Microstructure,
    MicrostructureDataset,
    ProcessSpace,
)
from networks import TrainingSettings
from surrogates.kernel_regression import KernelRegression, conformal_margin, nearest_distance
from surrogates.measured_property import MeasuredPropertySurrogate
from surrogates.measured_training import MeasuredSettings, train_measured_property
from surrogates.specimens import Specimens, read_columns, split_specimens

SIDE, PICTURES = 16, 2
FLAT = {"n_phases": 2, "periodic": (True, True)}


def specimens(count: int, *, seed: int) -> Specimens:
    """Return specimens of other fractions; the property is 100 + 80 fraction x column + noise."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(count, 1, 1, 1, generator=generator)
    field = torch.nn.functional.avg_pool2d(
        torch.randn(count, PICTURES, 2 * SIDE, 2 * SIDE, generator=generator), 2
    )
    phases = (field > 1.4 * (level - 0.5)).to(torch.uint8)
    column = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    scatter = 2 * torch.randn(count, generator=generator, dtype=torch.float64)
    fraction = phases.double().flatten(1).mean(1)
    return Specimens(
        names=tuple(f"{seed}-{k}" for k in range(count)),
        phases=phases.flatten(0, 1),
        owner=torch.arange(count).repeat_interleave(PICTURES),
        inputs=column,
        measured=100 + 80 * fraction * column[:, 0] + scatter,
    )


def settings(**changes) -> MeasuredSettings:
    training = TrainingSettings(steps=6, batch_size=8, warmup_steps=1)
    tiny = {"input_columns": ("column",), "widths": (8,), "features": 8, "components": 4}
    return MeasuredSettings(**{**tiny, "training": training, **changes})


def bounded(cells: Specimens, low: float, high: float) -> Specimens:
    ends = (torch.full_like(cells.inputs[:, 0], end) for end in (low, high))
    return replace(cells, **dict(zip(("lower", "upper"), ends, strict=True)))


def error(model: MeasuredPropertySurrogate, cells: Specimens) -> float:
    return float((model.predict(cells).value - cells.measured).square().mean().sqrt())


@pytest.mark.parametrize("regression", ["ridge", "gaussian process", "net"])
def test_the_property_is_learnt_and_survives_saving(regression, tmp_path):
    learnt, new = specimens(40, seed=1), specimens(150, seed=2)
    chosen = settings(regression=regression, held_out=0.3)
    model = train_measured_property(learnt, chosen, tmp_path / "m", **FLAT)
    plain = float(new.measured.std(correction=0))
    assert error(model, new) < 0.45 * plain, "the column and the picture both tell"
    found = model.predict(new)
    covered = ((found.lower <= new.measured) & (new.measured <= found.upper)).double().mean()
    assert 0.75 <= float(covered) <= 1
    assert float((found.upper - found.lower).mean()) < 4 * plain
    loaded = MeasuredPropertySurrogate.from_pretrained(tmp_path / "m").predict(new)
    assert torch.equal(loaded.upper, found.upper)
    assert float((found.distance <= 1).double().mean()) > 0.6
    far = replace(new, inputs=new.inputs + 20)
    assert float(model.predict(far).distance.min()) > 3


def test_units_do_not_matter(tmp_path):
    learnt, new = specimens(20, seed=3), specimens(5, seed=4)
    found = train_measured_property(learnt, settings(), tmp_path / "a", **FLAT).predict(new)
    other = replace(learnt, measured=1000 * learnt.measured, inputs=5 + 0.01 * learnt.inputs)
    renamed = replace(new, inputs=5 + 0.01 * new.inputs)
    again = train_measured_property(other, settings(), tmp_path / "b", **FLAT).predict(renamed)
    assert torch.allclose(again.value, 1000 * found.value, rtol=1e-3)
    assert torch.allclose(again.upper, 1000 * found.upper, rtol=1e-3)


@pytest.mark.parametrize("regression", ["ridge", "net"])
def test_wild_weights_cannot_leave_the_bounds(regression, tmp_path):
    learnt = bounded(specimens(20, seed=5), 60.0, 260.0)
    chosen = settings(regression=regression, lower="low", upper="high")
    model = train_measured_property(learnt, chosen, tmp_path / "m", **FLAT)
    generator = torch.Generator().manual_seed(0)
    if model.net is not None:
        for parameter in model.net.parameters():
            parameter.add_(5 * torch.randn(parameter.shape, generator=generator))
    wild = 30 * torch.randn(model.regression.targets.shape, generator=generator).double()
    model.regression = replace(model.regression, targets=wild)
    new = bounded(specimens(20, seed=6), 110.0, 120.0)
    found = model.predict(new)
    assert float((found.value - 115).abs().max()) > 4, "the weights are wild"
    for part in (found.value, found.lower, found.upper):
        assert 110 <= float(part.min()) <= float(part.max()) <= 120
    with pytest.raises(DataError, match="bounds"):
        model.predict(replace(new, lower=None, upper=None))


def test_crops_lie_on_one_side_and_count_once(tmp_path):
    cells = specimens(10, seed=7)
    for seed in range(4):
        kept, held_out = split_specimens(cells.names, 0.3, seed=seed)
        assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(10))
        crops = cells.cropped(8, 6, seed=0)
        sides = [set(crops.select(side).names) for side in (kept, held_out)]
        assert not sides[0] & sides[1]
        assert len(crops.select(held_out).owner) == 6 * len(held_out)
        assert (crops.select(kept).measured == cells.measured[kept]).all()
    order = list(reversed(cells.names))
    names = {order[k] for k in split_specimens(order, 0.3, seed=3)[1].tolist()}
    assert names == {cells.names[k] for k in held_out.tolist()}, "by name, not by place"
    # Twenty times the crops are no further measurements: the interval does not shrink for them.
    halves = []
    for count in (2, 40):
        model = train_measured_property(
            cells, settings(crop=8, crops=count), tmp_path / f"{count}", **FLAT
        )
        assert len(model.regression.targets) == 10
        found = model.predict(cells.cropped(8, count, seed=0))
        halves.append(float((found.upper - found.lower).mean()))
    assert halves[1] > 0.3 * halves[0]


def test_intervals_cover_what_they_say_over_many_draws():
    """100 draws of 20 rows: jackknife+ covers 90 % of new rows on average, and at least 80 %."""
    generator, covered = torch.Generator().manual_seed(8), []
    for _ in range(100):
        x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
        y = x[:, 0] - 0.5 * x[:, 1] + 0.5 * torch.randn(30, generator=generator).double()
        low, high = KernelRegression.ridge(x[:20], y[:20]).interval(x[20:], confidence=0.9)
        covered.append(((low <= y[20:]) & (y[20:] <= high)).double().mean())
    assert 0.86 <= float(torch.stack(covered).mean()) <= 0.96


def test_left_out_errors_are_those_of_a_second_fit():
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(12, 2, generator=generator, dtype=torch.float64)
    y, lengths = x.sin().sum(1), torch.tensor([1.0, 2.0]).double()
    for smooth in (True, False):
        fit = KernelRegression(x, y, lengths, 0.1, smooth)
        others = KernelRegression(x[1:], y[1:], lengths, 0.1, smooth)
        assert torch.allclose(fit.left_out[:1], y[:1] - others.predict(x[:1]), rtol=1e-8)
    assert conformal_margin(torch.arange(10.0), confidence=0.9) == 9
    assert conformal_margin(torch.arange(8.0), confidence=0.9) == torch.inf
    assert nearest_distance(x, x).max() == 0


def test_too_few_specimens_promise_nothing(tmp_path):
    few = specimens(6, seed=10)
    found = train_measured_property(few, settings(), tmp_path / "a", **FLAT).predict(few)
    assert found.upper.isinf().all()
    assert found.value.isfinite().all()
    held = train_measured_property(
        bounded(few, 0.0, 300.0), settings(lower=0, upper=300), tmp_path / "b", **FLAT
    ).predict(bounded(few, 0.0, 300.0))
    assert (held.lower == 0).all()
    assert (held.upper == 300).all()
    with pytest.raises(DataError, match="measure more specimens"):
        train_measured_property(few.select([0]), settings(), tmp_path / "c", **FLAT)


def test_a_frozen_encoder_adds_descriptors_and_is_recognised(tmp_path, monkeypatch):
    learnt = specimens(12, seed=11)
    chosen = settings(encoder="stiffness-2d", regression="ridge")
    model = train_measured_property(learnt, chosen, tmp_path / "m", **FLAT)
    raw = model.basis.descriptors.of_crops(learnt.phases[:2])
    assert torch.allclose(
        raw["features"],
        model.basis.descriptors.of_crops(learnt.phases[:2].roll((8, 8), (1, 2)))["features"],
        atol=1e-3,
    ), "pooled features do not see a shift by whole coarse voxels"
    monkeypatch.setattr("surrogates.crop_descriptors.encoder_digest", lambda _: "other")
    with pytest.raises(CheckpointError, match="train the model again"):
        MeasuredPropertySurrogate.from_pretrained(tmp_path / "m")


def pictures(names: list[str]) -> MicrostructureDataset:
    phases = specimens(len(names), seed=12).phases[::PICTURES].numpy()
    cells = [Microstructure(phases=p, phase_names=("a", "b")) for p in phases]
    return MicrostructureDataset.from_structures(cells, ProcessSpace([]), specimens=names)


def train_from(table, chosen, folder):
    found = chosen.gathered(pictures(["s1", "s2", "s1"]), read_columns(table, chosen.columns))
    train_measured_property(found.select([0, 1, 0, 1]), chosen, folder, **FLAT)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("specimen,property,column\ns1,1,2\ns2,nan,3\n", r"line 3 \(s2\).*'property'"),
        ("specimen,property,column\ns1,1,\ns2,1,3\n", r"line 2 \(s1\).*'column'"),
        ("specimen,property\ns1,1\ns2,2\n", "column 'column'"),
        ("specimen,property,column\ns1,1,2\ns1,2,3\n", "s1 again"),
        ("specimen,property,column\ns1,1,2\n", "none for 's2'"),
        ("specimen,property,column\ns1,1,2\ns2,1,2\ns3,4,5\n", "none of 's3'"),
        ("specimen,property,column\ns1,-1,2\ns2,4,5\n", "specimen 's1'.*between 0 and 10"),
    ],
)
def test_bad_tables_are_refused_by_row_and_column(text, said, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(text)
    chosen = settings(lower=0, upper=10)
    with pytest.raises(DataError, match=said):
        train_from(table, chosen, tmp_path / "m")


def test_pictures_are_gathered_by_specimen(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("specimen,property,column,top\ns2,5,3,8\ns1,4,2,9\n")
    chosen = settings(lower=0, upper="top")
    found = chosen.gathered(pictures(["s1", "s2", "s1"]), read_columns(table, chosen.columns))
    assert found.names == ("s1", "s2")
    assert found.owner.tolist() == [0, 1, 0]
    assert found.measured.tolist() == [4, 5]
    assert found.upper.tolist() == [9, 8]
    with pytest.raises(DataError, match="both bounds"):
        settings(lower=0).bounds  # noqa: B018
    with pytest.raises(DataError, match="at most the pictures"):
        found.cropped(SIDE + 1, 1, seed=0)
