"""Active learning: what is picked, from pools in which the doubt is known, and the whole loop."""

from itertools import pairwise

import pytest
import torch

from microstructures import DataError, Microstructure, MicrostructureDataset, ProcessSpace
from physics.mechanics import IsotropicElastic, effective_stiffness
from surrogates.active_learning import (
    CertificateWidth,
    FirstStepsWidth,
    PredictedSpread,
    cell_features,
    elastic_phases,
    next_cells,
    unlabelled_cells,
)
from surrogates.active_training import (
    ActivePropertySettings,
    ActiveSettings,
    solved_rows,
    train_actively,
)
from surrogates.descriptor_process import CellDescriptors, DescriptorProcess
from surrogates.labels import LabelledCells
from surrogates.learning_rounds import picked_in_rounds, round_sizes
from surrogates.quantities import MaterialRange, Stiffness

NONE = torch.zeros(0, dtype=torch.long)


def test_a_batch_finds_the_rare_group_and_repeats_no_cell():
    # 90 cells in two tight heaps that are known well, 10 scattered ones that are not.
    generator = torch.Generator().manual_seed(0)
    heaps = torch.randn(2, 4, generator=generator).repeat(45, 1)
    features = torch.cat([heaps, 2 * torch.randn(10, 4, generator=generator)])
    doubt = torch.cat([torch.full((90,), 0.01), torch.full((10,), 0.2)])
    known = torch.arange(20)
    rows = next_cells(doubt, features, 10, known=known, seed=3)
    assert len(rows.unique()) == 10
    assert not set(rows.tolist()) & set(known.tolist())
    assert (rows >= 90).sum() >= 9, "copies of known cells teach nothing"
    assert torch.equal(rows, next_cells(doubt, features, 10, known=known, seed=3))
    assert not torch.equal(rows, next_cells(doubt, features, 10, known=known, seed=4))
    everything = next_cells(doubt, features, 80, known=known, seed=0)
    assert sorted(everything.tolist()) == list(range(20, 100))


def test_a_batch_holds_no_copies_while_others_are_left():
    features = torch.arange(5.0).repeat_interleave(20).unsqueeze(1)
    doubt = torch.ones(100)
    doubt[:20] = 10
    rows = next_cells(doubt, features, 5, known=NONE, seed=1)
    assert sorted((rows // 20).tolist()) == [0, 1, 2, 3, 4]


def test_bad_picks_are_refused():
    ones, place = torch.ones(5), torch.rand(5, 2)
    with pytest.raises(DataError, match="1 to 3 cells"):
        next_cells(ones, place, 4, known=torch.tensor([0, 1]), seed=0)
    with pytest.raises(DataError, match="at least 0"):
        next_cells(-ones, place, 1, known=NONE, seed=0)
    with pytest.raises(DataError, match="in the first round"):
        round_sizes(64, 64, 3)
    with pytest.raises(DataError, match="pool of at least 9"):
        picked_in_rounds(lambda rows: ones, place, [3, 9], seed=0)


@pytest.mark.parametrize(("first", "labels", "rounds"), [(32, 256, 4), (1, 4, 4), (60, 64, 3)])
def test_rounds_grow_to_all_labels(first, labels, rounds):
    sizes = round_sizes(first, labels, rounds)
    assert (sizes[0], sizes[-1], len(sizes)) == (first, labels, rounds)
    assert all(a < b for a, b in pairwise(sizes))


def test_a_killed_loop_goes_on_where_it_was(tmp_path):
    features, asked = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)), []

    def learn(rows):
        asked.append(len(rows))
        if len(rows) == 16 and asked.count(16) == 1:
            raise KeyboardInterrupt
        return features.sum(1)

    sizes = [8, 16, 24]
    whole = picked_in_rounds(lambda rows: features.sum(1), features, sizes, seed=5)
    with pytest.raises(KeyboardInterrupt):
        picked_in_rounds(learn, features, sizes, seed=5, folder=tmp_path / "picks")
    resumed = picked_in_rounds(learn, features, sizes, seed=5, folder=tmp_path / "picks")
    assert torch.equal(resumed, whole)
    assert asked == [8, 16, 16], "the first round is read, not repeated"
    place = tmp_path / "picks"
    with pytest.raises(DataError, match="found others"):
        picked_in_rounds(learn, features, sizes, seed=5, folder=place, identity={"pool": "b"})


def test_certificates_are_wide_where_the_contrast_is_high(blobs, surrogate):
    cells = blobs(4, seed=80)

    def pool(contrast: float) -> LabelledCells:
        soft, stiff = (
            IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.3) for e in (2.0, 2 * contrast)
        )
        return unlabelled_cells(cells, [soft, stiff], Stiffness())

    mixed = LabelledCells.joined([pool(3.0), pool(30.0)])
    width = FirstStepsWidth()(mixed)
    assert (width[4:] > 3 * width[:4]).all()
    assert (FirstStepsWidth(iterations=6)(mixed) < 0.2 * width).all()
    net = CertificateWidth(surrogate)(mixed)
    assert (net[4:] > net[:4]).all()
    found = elastic_phases(mixed.moduli[0], mixed)
    assert found[1].youngs_modulus_gpa / found[0].youngs_modulus_gpa == pytest.approx(3, rel=1e-5)
    assert found[1].poisson_ratio == pytest.approx(0.3, abs=1e-5)


def test_the_process_knows_what_it_has_seen_and_doubts_the_rest(blobs):
    cells = _pool(blobs(140, seed=81), (20.0, 50.0))
    solved = solved_rows(cells, torch.arange(140), tolerance=1e-3)
    described = CellDescriptors.of(solved, components=6)
    few, rest = torch.arange(100), torch.arange(100, 140)
    process = DescriptorProcess.fit(described.rows(few), solved.effective[few])
    value, spread = process.predict(described.rows(rest))
    bound = described.interval.upper[rest]
    actual = solved.effective[rest].double()
    own = (value - actual).abs()[:, 0, 0].mean()
    assert own < 0.6 * (bound - actual).abs()[:, 0, 0].mean(), "better than the bound alone"
    assert (spread > 0).all()
    doubt = process.doubt(described)
    assert doubt[few].mean() < doubt[rest].mean()
    assert torch.linalg.eigvalsh(bound - value).min() > -1e-5 * bound.abs().max()
    with pytest.raises(DataError, match="more than 12"):
        CellDescriptors.of(solved.rows(few[:5]))


def test_a_net_is_trained_on_the_labels_it_asked_for(blobs, tmp_path):
    cells = [Microstructure(phases=cell.numpy()) for cell in blobs(60, seed=82)]
    dataset = MicrostructureDataset.from_structures(cells, ProcessSpace([]))
    settings = ActivePropertySettings.model_validate(
        {
            "widths": (8, 8),
            "features": 8,
            "members": 1,
            "random_fields": 0,
            "held_out": 0.3,
            "confidence": 0.5,
            "training": {"steps": 3, "warmup_steps": 1},
            "active": {"labels": 20, "first": 8, "rounds": 3},
        }
    )
    net = train_actively(dataset, settings, tmp_path / "net")
    labels = sorted(path.name for path in (tmp_path / "net.labels").iterdir())
    assert labels == [f"labels-{a:06d}-{b:06d}" for a, b in ((0, 8), (8, 13), (13, 20))]
    assert len(net.familiarity.known) == 20
    again = train_actively(dataset, settings, tmp_path / "net")
    materials = [IsotropicElastic(youngs_modulus_gpa=e, poisson_ratio=0.3) for e in (1.0, 9.0)]
    phases = dataset.phases[:4]
    found = [each.predict(phases, materials) for each in (net, again)]
    assert torch.equal(found[0].value, found[1].value)
    exact = effective_stiffness(phases, materials).value
    assert ((found[0].value - exact).abs()[:, 0, 0] < 0.5 * exact[:, 0, 0]).all()
    spread = PredictedSpread(net)(unlabelled_cells(phases, materials, Stiffness()))
    half = (found[0].upper - found[0].value) / net.margins
    expected = (half / found[0].value).diagonal(dim1=1, dim2=2).square().mean(1).sqrt()
    assert torch.allclose(spread, expected, rtol=1e-5)
    assert ActiveSettings.model_validate({}).sizes[-1] == 512


def test_features_tell_families_apart(blobs):
    pool = LabelledCells.joined(
        [_pool(blobs(6, seed=83), (3.0, 4.0)), _pool(blobs(6, seed=84), (40.0, 50.0))]
    )
    features = cell_features(pool)
    inside = torch.cdist(features[:6], features[:6]).median()
    assert torch.cdist(features[:6], features[6:]).amin() > 0.5 * inside


def _pool(phases, contrast) -> LabelledCells:
    from surrogates.labels import unsolved_labels

    return unsolved_labels(
        phases, Stiffness(), MaterialRange(contrast, (0.2, 0.4)), n_phases=2, seed=0
    )
