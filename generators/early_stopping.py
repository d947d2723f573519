"""Early stopping: the averaged weights are judged on held-out maps, the best state is kept."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from generators.held_out_distance import HeldOutDistance, Sampler
from microstructures import DataError
from microstructures.publishing import open_verified, publish_folder

BEST = "best"


class EarlyStopping(BaseModel):
    """When a training on few maps ends: no longer nearer to specimens that it does not see."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    every: int = Field(default=250, ge=1, description="steps between judgements")
    patience: int = Field(
        default=4, ge=1, description="judgements without a better one before training ends"
    )
    held_out_share: float = Field(
        default=0.2, gt=0, le=0.5, description="share of the samples held out, in whole specimens"
    )
    samples: int = Field(
        default=128, ge=8, le=10_000, description="structures generated for each judgement"
    )
    use_all: bool = Field(
        default=True,
        description="then train on all specimens for as many steps as were best; false keeps the "
        "weights that never saw the held-out ones",
    )


@runtime_checkable
class Judge(Protocol):
    """Tells how far a generator is from what it should make."""

    floor: dict[str, float]

    def judge(self, generator: Sampler) -> HeldOutDistance:
        """Return the distance of a generator."""
        ...


class BestState:
    """Judges the averaged state every few steps, keeps the best one, and says when to stop.

    Best state and history lie in `FOLDER/best`, written whole at every judgement, so a training
    that is killed goes on with them; judged steps are not judged again.

    Args:
        folder: Where the checkpoints of the training live.
        settings: When to judge and to stop.
        identity: What the training is (settings, data).
        held_out: What to judge by.
        generator: Returns the generator of an averaged state.

    Raises:
        DataError: The folder holds the best state of another training.
        CheckpointError: The best state was altered.
    """

    def __init__(
        self,
        folder: Path,
        settings: EarlyStopping,
        *,
        identity: Mapping[str, Any],
        held_out: Judge,
        generator: Callable[[Mapping[str, Tensor]], Sampler],
    ) -> None:
        self.folder, self.settings = folder / BEST, settings
        self.held_out, self.generator = held_out, generator
        self.identity = json.loads(json.dumps(dict(identity)))
        self.history: list[dict[str, Any]] = []
        self.state: dict[str, Tensor] = {}
        self._resume()

    def __call__(self, step: int, state: Mapping[str, Tensor]) -> bool:
        """Judge the state where it is due; return whether training should end."""
        due = step > 0 and step % self.settings.every == 0
        if due and all(row["step"] != step for row in self.history):
            self._judge(step, state)
        return self.stopped

    @property
    def best_step(self) -> int:
        """The step with the smallest distance so far; 0 before the first judgement."""
        finite = [row for row in self.history if row["distance"] is not None]
        return min(finite, key=lambda row: row["distance"])["step"] if finite else 0

    @property
    def stopped(self) -> bool:
        """Whether the last judgements, as many as the patience, found nothing better."""
        later = [row for row in self.history if row["step"] > self.best_step]
        return len(later) >= self.settings.patience

    def _judge(self, step: int, state: Mapping[str, Tensor]) -> None:
        distance = self.held_out.judge(self.generator(state))
        total = distance.total if math.isfinite(distance.total) else None
        self.history.append({"step": step, "distance": total, "errors": distance.errors})
        if self.best_step == step or not self.state:
            self.state = {k: v.detach().cpu().clone() for k, v in state.items()}
        self._save()

    def _save(self) -> None:
        history = [
            {
                **row,
                "errors": {k: v if math.isfinite(v) else None for k, v in row["errors"].items()},
            }
            for row in self.history
        ]
        facts = {
            "identity": self.identity,
            "best_step": self.best_step,
            "stopped": self.stopped,
            "floor": self.held_out.floor,
            "history": history,
        }

        def write(partial: Path) -> None:
            save_file(
                {k: v.contiguous() for k, v in self.state.items()}, partial / "state.safetensors"
            )
            (partial / "history.json").write_text(json.dumps(facts, indent=2, allow_nan=False))

        publish_folder(self.folder, write, kind="best state")

    def _resume(self) -> None:
        if not self.folder.exists():
            return
        open_verified(self.folder, kind="best state")
        facts = json.loads((self.folder / "history.json").read_text())
        if facts["identity"] != self.identity:
            raise DataError(
                f"expected {self.folder.parent} to hold the training of these settings and data, "
                "found another; choose another output folder, or repeat with the same settings"
            )
        self.history = facts["history"]
        self.state = load_file(self.folder / "state.safetensors")


def early_stopping_history(checkpoints: Path) -> dict[str, Any] | None:
    """Return what early stopping found in a checkpoint folder, None where it was not used.

    Keys: `best_step`, `stopped`, `floor` by measure, `history` (a list of step, distance and
    errors by measure), `identity`.
    """
    folder = checkpoints / BEST
    if not folder.exists():
        return None
    open_verified(folder, kind="best state")
    return json.loads((folder / "history.json").read_text())
