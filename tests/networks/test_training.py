"""The training loop: exact resume, damaged checkpoints, non-finite steps, foreign folders."""

import pytest
import torch
from torch import nn

from microstructures import ConvergenceError, DataError
from networks import TrainingSettings, train

DATA = torch.linspace(-1, 1, 32)


class Fit(nn.Module):
    """Fit y = x^2 with a small net; optionally turn to NaN at some loss calls."""

    def __init__(self, poisoned=()):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
        self.calls, self.poisoned = 0, set(poisoned)

    def forward(self, x, noise):
        self.calls += 1
        value = (self.net(x[:, None])[:, 0] + 1e-3 * noise - x.square()).square().mean()
        return (value * float("nan") if self.calls in self.poisoned else value), {
            "mse": value.detach()
        }


def draw(batch, generator):
    return DATA[batch], torch.randn(len(batch), generator=generator)


def run(folder, *, steps=40, model=None, stop_at=None, **change):
    def progress(step, total, numbers):
        if step == stop_at:
            raise KeyboardInterrupt

    settings = TrainingSettings(
        steps=steps, batch_size=8, warmup_steps=5, checkpoint_every=10, learning_rate=1e-2, **change
    )
    return train(
        model or Fit(),
        draw,
        n_samples=32,
        settings=settings,
        folder=folder,
        identity={"data": "parabola"},
        progress=progress,
    )


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_loss_falls(tmp_path):
    seen = []
    settings = TrainingSettings(steps=300, batch_size=16, learning_rate=1e-2)
    train(
        Fit(),
        draw,
        n_samples=32,
        settings=settings,
        folder=tmp_path / "c",
        identity={},
        progress=lambda step, total, numbers: seen.append(numbers["mse"]),
    )
    assert sum(seen[-20:]) < 0.5 * sum(seen[:20])


@pytest.mark.parametrize("stop_at", [7, 10, 23])
def test_interrupted_equals_uninterrupted(tmp_path, stop_at):
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop_at=stop_at)
    assert same(run(tmp_path / "parts"), whole)


def test_interrupted_inside_an_update_equals_uninterrupted(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    real, calls = torch.optim.AdamW.step, []

    def struck(optimizer, *args, **options):
        answer = real(optimizer, *args, **options)
        calls.append(1)
        if len(calls) == 23:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(torch.optim.AdamW, "step", struck)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    monkeypatch.undo()
    assert same(run(tmp_path / "parts"), whole)


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop_at=25)
    newest = sorted((tmp_path / "parts").glob("step-*"))[-1]
    weights = newest / "optimizer.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(bytes(content))
    assert same(run(tmp_path / "parts"), whole)


def test_two_bad_steps_are_skipped_and_three_stop_the_run(tmp_path):
    run(tmp_path / "two", model=Fit(poisoned=(14, 15)))
    with pytest.raises(ConvergenceError, match="non-finite steps in a row up to step 15"):
        run(tmp_path / "three", model=Fit(poisoned=(14, 15, 16)))
    assert [p.name for p in (tmp_path / "three").glob("step-*")] == ["step-00000010"]


@pytest.mark.parametrize(
    ("first", "kept"), [(21, ["step-00000010"]), (20, ["step-00000010"]), (11, [])]
)
def test_a_state_that_gave_no_finite_loss_is_not_kept(tmp_path, first, kept):
    poisoned = (first, first + 1, first + 2)
    with pytest.raises(ConvergenceError, match=kept[-1] if kept else "no checkpoint"):
        run(tmp_path / "c", model=Fit(poisoned=poisoned))
    assert [p.name for p in (tmp_path / "c").glob("*")] == kept


def test_checkpoints_of_another_run_are_refused(tmp_path):
    run(tmp_path / "c", steps=10)
    with pytest.raises(DataError, match="another"):
        run(tmp_path / "c", steps=20)


def test_a_watch_sees_every_step_and_ends_the_training(tmp_path):
    seen = []

    def watch(step, state):
        seen.append((step, {k: v.clone() for k, v in state.items()}))
        return step == 12

    settings = TrainingSettings(steps=40, batch_size=8, checkpoint_every=10)
    about = {"n_samples": 32, "folder": tmp_path / "c", "identity": {}, "settings": settings}
    ended = train(Fit(), draw, watch=watch, **about)
    assert [step for step, _ in seen] == list(range(13))
    assert same(seen[-1][1], ended)
    # Repeated, it is asked again from the last checkpoint on, and sees the same state.
    before = dict(seen)
    seen.clear()
    assert same(train(Fit(), draw, watch=watch, **about), ended)
    assert [step for step, _ in seen] == [10, 11, 12]
    assert all(same(state, before[step]) for step, state in seen)


def test_a_watch_is_asked_after_the_last_step(tmp_path):
    steps = []
    settings = TrainingSettings(steps=3, batch_size=8)
    watch = lambda step, _: steps.append(step) or False  # noqa: E731
    train(
        Fit(),
        draw,
        watch=watch,
        n_samples=32,
        folder=tmp_path,
        identity={},
        settings=settings,
    )
    assert steps == [0, 1, 2, 3]
