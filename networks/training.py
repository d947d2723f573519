"""The one training loop: accelerate, EMA, exact resume, a guard against non-finite steps."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from microstructures import CheckpointError, ConvergenceError, DataError
from microstructures.publishing import open_verified, publish_folder
from microstructures.seeds import generator_for

Draw = Callable[[Tensor, torch.Generator], Sequence[Tensor]]
Progress = Callable[[int, int, Mapping[str, float]], None]
Watch = Callable[[int, Mapping[str, Tensor]], bool]
BAD_STEPS_IN_A_ROW = 3


class TrainingSettings(BaseModel):
    """How long and how fast to train."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=4000, ge=1, description="optimizer steps")
    batch_size: int = Field(default=16, ge=1, description="samples per step and process")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak rate of AdamW")
    warmup_steps: int = Field(default=100, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(default=0.0, ge=0, description="decay of AdamW")
    ema_steps: int = Field(
        default=200, ge=1, description="averaging length of the weights, in steps"
    )
    gradient_clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    checkpoint_every: int = Field(default=200, ge=1, description="steps between checkpoints")
    precision: Literal["no", "bf16"] = Field(
        default="no", description="bf16 is faster where the processor has it"
    )
    seed: int = Field(default=0, ge=0, description="seed of batches and noise")


def train(
    objective: nn.Module,
    draw: Draw,
    *,
    n_samples: int,
    settings: TrainingSettings,
    folder: str | Path,
    identity: Mapping[str, Any],
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> dict[str, Tensor]:
    """Train an objective and return its averaged state.

    Every random number of step k (batch, noise) comes from a generator seeded by (seed, k), so a
    run that is killed and repeated on the same folder gives bit-equal weights on a CPU.

    Args:
        objective: A module that holds the net; its forward maps the tensors of a batch to the
            loss and a dict of scalars to show.
        draw: Maps (sample indices, generator) to the tensors of a batch, noise included.
        n_samples: Size of the training set, from which batches draw indices.
        settings: Length, rate, batch size.
        folder: Where checkpoints live; an interrupted run resumes from the newest that verifies.
        identity: What the checkpoints belong to (settings, data digest); another identity in
            the folder is refused.
        progress: Called after each step with (step, steps, metrics).
        watch: Called with (steps done, averaged state) before each step and after the last; True
            ends the training there. It is called again at the step where a run resumes, so what
            it answers must depend on its arguments alone.

    Raises:
        ConvergenceError: Three steps in a row gave a non-finite loss or gradient.
        DataError: The folder holds checkpoints of another run.
    """
    accelerator = Accelerator(mixed_precision=settings.precision)
    optimizer = torch.optim.AdamW(
        objective.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    ema = {k: v.detach().clone() for k, v in objective.state_dict().items()}
    identity = json.loads(json.dumps({**identity, "training": settings.model_dump()}))
    start = _resume(Path(folder), objective, optimizer, ema, identity)
    prepared, optimizer = accelerator.prepare(objective, optimizer)
    ema = {k: v.to(accelerator.device) for k, v in ema.items()}
    unwrapped = accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
    bad, done, whole = 0, start, True
    try:
        for step in range(start, settings.steps + 1):
            if (watch is not None and watch(step, ema)) or step == settings.steps:
                break
            generator = generator_for(settings.seed, "step", step, accelerator.process_index)
            batch = torch.randint(n_samples, (settings.batch_size,), generator=generator)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, settings)
            tensors = [t.to(accelerator.device) for t in draw(batch, generator)]
            value, shown = prepared(*tensors)
            optimizer.zero_grad()
            finite = _sloped(accelerator, prepared, value, settings.gradient_clip)
            whole, bad = False, 0 if finite else bad + 1
            if finite:
                optimizer.step()
            else:
                _guard(bad, step, batch, Path(folder))
            _average(ema, unwrapped, step, settings)
            done, whole = step + 1, True
            if progress:
                numbers = {name: float(number) for name, number in shown.items()}
                progress(done, settings.steps, {"loss": float(value.detach()), **numbers})
            due = done % settings.checkpoint_every == 0 and not bad
            if due and accelerator.is_main_process:
                save_checkpoint(Path(folder), done, unwrapped, optimizer, ema, identity)
    except (KeyboardInterrupt, SystemExit):
        # Weights caught in the middle of an update belong to no step: the last checkpoint stands.
        if whole and accelerator.is_main_process:
            save_checkpoint(Path(folder), done, unwrapped, optimizer, ema, identity)
        raise
    return ema


def _sloped(accelerator: Accelerator, objective: nn.Module, loss: Tensor, clip: float) -> bool:
    """Compute clipped gradients; return whether they and the loss are finite."""
    accelerator.backward(loss)
    norm = accelerator.clip_grad_norm_(objective.parameters(), clip)
    return bool(torch.isfinite(loss) and (norm is None or torch.isfinite(norm)))


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Any,
    ema: Mapping[str, Tensor],
    identity: Mapping[str, Any],
) -> None:
    """Publish checkpoint `step-N` and keep the newest two."""
    moments = {
        f"{index}.{key}": torch.as_tensor(value).detach().contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }

    def write(partial: Path) -> None:
        save_file(_contiguous(model.state_dict()), partial / "model.safetensors")
        save_file(_contiguous(ema), partial / "ema.safetensors")
        save_file(moments, partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": step, "identity": identity}))

    publish_folder(folder / f"step-{step:08d}", write, kind="checkpoint")
    for old in _checkpoints(folder)[:-2]:
        shutil.rmtree(old, ignore_errors=True)


def _resume(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: dict[str, Tensor],
    identity: Mapping[str, Any],
) -> int:
    for checkpoint in reversed(_checkpoints(folder)):
        try:
            open_verified(checkpoint, kind="checkpoint")
        except CheckpointError:
            continue  # a damaged checkpoint: the one before it is good
        state = json.loads((checkpoint / "state.json").read_text())
        if state["identity"] != identity:
            raise DataError(
                f"expected {folder} to hold checkpoints of these settings and data, found those of "
                "another run; choose another output folder, or repeat with the same settings"
            )
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        ema.update(load_file(checkpoint / "ema.safetensors"))
        _restore_moments(optimizer, load_file(checkpoint / "optimizer.safetensors"))
        return int(state["step"])
    return 0


def _restore_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in moments.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _checkpoints(folder: Path) -> Sequence[Path]:
    return sorted(p for p in folder.glob("step-????????") if p.is_dir())


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in state.items()}


def _guard(bad: int, step: int, batch: Tensor, folder: Path) -> None:
    if bad < BAD_STEPS_IN_A_ROW:
        return
    # The weights after k steps are known to be good once step k gave a finite loss with them.
    good = _forget_after(folder, step - bad)
    kept = f"the last good state is {good}" if good else "no checkpoint was made before"
    raise ConvergenceError(
        f"expected a finite loss, got {bad} non-finite steps in a row up to step {step} (samples "
        f"{batch.tolist()}); {kept}; lower learning_rate or look at these samples"
    )


def _forget_after(folder: Path, step: int) -> Path | None:
    """Remove the checkpoints after a step, and return the newest that is left."""
    for checkpoint in _checkpoints(folder):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint, ignore_errors=True)
    left = _checkpoints(folder)
    if not left and folder.is_dir():
        with suppress(OSError):  # somebody else has put something there
            folder.rmdir()
    return left[-1] if left else None


def _schedule(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return warm * (0.505 + 0.495 * math.cos(math.pi * step / settings.steps))


@torch.no_grad()
def _average(
    ema: Mapping[str, Tensor], model: nn.Module, step: int, settings: TrainingSettings
) -> None:
    # A short memory at first, so that the random initial weights are forgotten.
    share = max(1 / (settings.ema_steps + 1), 1 / (step + 1))
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            ema[key].lerp_(value, share)
        else:
            ema[key].copy_(value)
