"""Training on few maps: judged on held-out specimens, stopped, resumed, started from weights."""

import numpy as np
import pytest
import torch

from generators import (
    ConditionalDiffusion,
    DiffusionSettings,
    VaeSettings,
    train_diffusion,
    train_vae,
)
from generators.diffusion_training import initial_objective
from generators.early_stopping import BestState, EarlyStopping, early_stopping_history
from generators.held_out_distance import HeldOutDistance, HeldOutStructures
from generators.initial_weights import InitialWeights
from generators.learner import training_identity
from microstructures import (
    CheckpointError,
    DataError,
    Microstructure,
    MicrostructureDataset,
    Parameter,
    ProcessSpace,
)
from networks import TrainingSettings

SPACE = ProcessSpace([Parameter("time_h", "h", 0.0, 1.0)])


def stripes(width, *, n, seed, periodic=True):
    """Stripes of a width along x at random offsets."""
    draw = np.random.default_rng(seed)
    line = (np.arange(16) // width) % 2
    cells = [np.tile(np.roll(line, draw.integers(16))[:, None], (1, 16)) for _ in range(n)]
    return [
        Microstructure(c.astype(np.uint8), periodic=(periodic,) * 2, process={"time_h": width / 8})
        for c in cells
    ]


@pytest.fixture(scope="module")
def maps():
    """Twelve specimens of two cells each, at three widths."""
    widths = [1, 2, 4]
    cells = [c for k in range(12) for c in stripes(widths[k % 3], n=2, seed=k)]
    names = [f"specimen {k // 2}" for k in range(24)]
    return MicrostructureDataset.from_structures(cells, SPACE, specimens=names)


class Copies:
    """Gives real structures back, or others instead."""

    def __init__(self, width=None):
        self.width = width

    def sample(self, processes, *, shape, seed):
        asked = [self.width or round(8 * p["time_h"]) for p in processes]
        return [stripes(w, n=1, seed=100 + k)[0] for k, w in enumerate(asked)]


def test_the_distance_tells_the_right_structures_from_others(maps):
    held_out = HeldOutStructures(maps, samples=24, seed=0)
    right, wrong = held_out.judge(Copies()), held_out.judge(Copies(width=4))
    assert right.total < 0.2
    assert wrong.total > 1
    assert wrong.errors["surface"] > 0.2


def test_the_distance_needs_four_samples(maps):
    with pytest.raises(DataError, match="at least 4 held-out samples"):
        HeldOutStructures(maps.subset([0, 1, 2]), samples=8, seed=0)


class Script:
    """A judge that answers with numbers in a row."""

    def __init__(self, totals):
        self.totals, self.calls, self.floor = list(totals), 0, {"s2": 1.0}

    def judge(self, generator):
        self.calls += 1
        return HeldOutDistance(self.totals.pop(0), {"s2": 1.0})


def best_state(folder, totals, *, identity=1):
    stopping = EarlyStopping(every=10, patience=2)
    judge = Script(totals)
    return BestState(
        folder,
        stopping,
        identity={"run": identity},
        held_out=judge,
        generator=lambda state: Copies(),
    ), judge


def states(steps):
    return ((step, {"w": torch.tensor([float(step)])}) for step in range(steps))


def test_the_best_state_is_kept_and_training_stops_after_the_patience(tmp_path):
    best, judge = best_state(tmp_path, [3.0, 1.0, 2.0, float("nan"), 0.5])
    ended = next(step for step, state in states(60) if best(step, state))
    assert (ended, best.best_step, judge.calls) == (40, 20, 4)
    assert best.state["w"].item() == 20
    found = early_stopping_history(tmp_path)
    assert [row["distance"] for row in found["history"]] == [3.0, 1.0, 2.0, None]


def test_a_resumed_judgement_goes_on_where_it_was(tmp_path):
    first, _ = best_state(tmp_path, [3.0, 1.0])
    assert not any(first(step, state) for step, state in states(21))
    again, judge = best_state(tmp_path, [2.0, 2.5])
    ended = next(step for step, state in states(60) if again(step, state))
    assert (ended, again.best_step, judge.calls) == (40, 20, 2)
    assert again.state["w"].item() == 20
    with pytest.raises(DataError, match="found another"):
        best_state(tmp_path, [], identity=2)


TINY = DiffusionSettings(
    widths=(8, 8),
    features=16,
    latent_dim=2,
    match_fractions=False,
    training=TrainingSettings(steps=8, batch_size=4, warmup_steps=1, checkpoint_every=2),
)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("generators.code_prior.STEPS", 5)


def stopping(**change):
    return EarlyStopping(**{"every": 2, "patience": 2, "samples": 8, **change})


def trained(maps, out, settings, *, kill_at=None):
    def progress(step, total, numbers):
        if step == kill_at:
            raise KeyboardInterrupt

    return train_diffusion(maps, settings, out, progress=progress).net.state_dict()


def test_a_killed_training_ends_as_an_unbroken_one(maps, tmp_path, quick):
    settings = TINY.model_copy(update={"early_stopping": stopping()})
    whole = trained(maps, tmp_path / "whole", settings)
    for step in (3, 4):
        with pytest.raises(KeyboardInterrupt):
            trained(maps, tmp_path / "parts", settings, kill_at=step)
    parts = trained(maps, tmp_path / "parts", settings)
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    histories = [
        early_stopping_history(tmp_path / f"{name}.checkpoints") for name in ("whole", "parts")
    ]
    assert histories[0] == histories[1]
    assert (tmp_path / "whole.checkpoints.all").exists()


def test_held_out_specimens_are_not_trained_on(maps, tmp_path, quick):
    """With one judgement the weights are those of a training on the other specimens alone."""
    settings = TINY.model_copy(update={"early_stopping": stopping(every=8, use_all=False)})
    part, held_out = maps.split(0.2, seed=0)
    assert not set(part.specimens) & set(held_out.specimens)
    watched = trained(maps, tmp_path / "watched", settings)
    plain = trained(part, tmp_path / "plain", TINY)
    assert all(torch.equal(plain[k], watched[k]) for k in plain)


@pytest.fixture(scope="module")
def source(maps, tmp_path_factory):
    """Saved weights of the same net for other data: two phases, one parameter."""
    net = initial_objective(maps, TINY).denoiser
    model = ConditionalDiffusion.of_dataset(net, maps, match_fractions=False)
    return model.save_pretrained(tmp_path_factory.mktemp("source") / "model")


def three_phases():
    draw = np.random.default_rng(0)
    space = ProcessSpace([Parameter("a", "-", 0, 1), Parameter("b", "-", 0, 1)])
    cells = [
        Microstructure(
            draw.integers(3, size=(16, 16)).astype(np.uint8), process={"a": 0.5, "b": 0.1}
        )
        for _ in range(4)
    ]
    return MicrostructureDataset.from_structures(cells, space)


def test_tensors_of_equal_name_and_shape_are_taken_over(source):
    data = three_phases()
    initial = InitialWeights.load(source, family="ConditionalDiffusion", dim=2)
    net = initial_objective(data, TINY).denoiser
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = initial.copy_to(net)
    after = net.state_dict()
    assert set(found.taken) | set(found.fresh) == set(after)
    assert all(torch.equal(after[k], initial.state[k]) for k in found.taken)
    assert all(torch.equal(after[k], before[k]) for k in found.fresh)
    assert "process.unknown" in found.fresh
    assert "process.mix.1.weight" in found.fresh
    assert "code.weight" in found.taken
    assert f"{len(found.taken)} of {len(after)} tensors" in str(found)


def test_a_training_starts_from_the_weights_and_knows_them(maps, source, tmp_path, quick):
    slow = TrainingSettings(seed=1, steps=1, batch_size=2, learning_rate=1e-12, warmup_steps=1)
    settings = TINY.model_copy(update={"init_from": str(source), "training": slow})
    tuned = trained(maps, tmp_path / "tuned", settings)
    initial = InitialWeights.load(source, family="ConditionalDiffusion", dim=2)
    body = [k for k in initial.state if k.startswith(("unet.", "process."))]
    assert all(torch.allclose(tuned[k], initial.state[k], atol=1e-6) for k in body)
    found = training_identity(maps, settings, initial)
    assert found["init_from_sha256"] == initial.digest
    assert found != training_identity(maps, settings, None)


@pytest.mark.parametrize(
    ("family", "dim", "said"),
    [
        ("ConditionalGAN", 2, "expected a ConditionalGAN"),
        ("ConditionalDiffusion", 3, "3-D net"),
    ],
)
def test_foreign_weights_are_refused(source, family, dim, said):
    with pytest.raises(CheckpointError, match=said):
        InitialWeights.load(source, family=family, dim=dim)


def test_weights_of_another_width_are_refused(source):
    initial = InitialWeights.load(source, family="ConditionalDiffusion", dim=2)
    wide = TINY.model_copy(update={"widths": (16, 16)})
    with pytest.raises(CheckpointError, match=r"widths \[8, 8\], not \[16, 16\]"):
        initial.copy_to(initial_objective(three_phases(), wide).denoiser)


def test_a_family_in_two_stages_is_not_stopped_early(maps, tmp_path):
    with pytest.raises(DataError, match="early_stopping for a diffusion model or a GAN"):
        train_vae(maps, VaeSettings(early_stopping=stopping()), tmp_path / "vae")
    assert list(tmp_path.iterdir()) == []


def test_structures_without_particles_keep_distances_finite(maps):
    """Stripes have no Euler density at all; a generator of noise has."""

    class Noise:
        def sample(self, processes, *, shape, seed):
            draw = np.random.default_rng(seed)
            cells = draw.integers(2, size=(len(processes), *shape))
            return [Microstructure(c.astype(np.uint8)) for c in cells]

    held_out = HeldOutStructures(maps, samples=24, seed=0)
    found = held_out.judge(Noise())
    assert 1 < found.total < 1e6
    assert 1 < found.errors["euler"] < 1e3
