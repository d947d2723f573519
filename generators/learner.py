"""Training one family's learner on a data set: plainly, or for as long as held-out maps gain."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from generators.early_stopping import BestState, EarlyStopping
from generators.generator import ConditionalGenerator
from generators.held_out_distance import HeldOutStructures
from generators.initial_weights import InitialWeights
from microstructures.dataset import MicrostructureDataset
from networks.training import Draw, Progress, TrainingSettings, train

Objective = TypeVar("Objective", bound=nn.Module)
Model = TypeVar("Model", bound=ConditionalGenerator)


@runtime_checkable
class LearnerSettings(Protocol):
    """What the settings of every family have in common."""

    @property
    def early_stopping(self) -> EarlyStopping | None: ...
    @property
    def init_from(self) -> str | None: ...
    @property
    def training(self) -> TrainingSettings: ...
    def model_dump(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Learner(Generic[Objective, Model]):
    """What a family trains on one data set.

    Args:
        objective: Loss around the net.
        draw: Gives the tensors of a batch.
        generator: Returns the generator of a trained objective, whose heads it may still fit; the
            second argument says whether it is the final one.
    """

    objective: Objective
    draw: Draw
    generator: Callable[[Objective, bool], Model]


def train_learner(
    learner_of: Callable[[MicrostructureDataset], Learner[Objective, Model]],
    dataset: MicrostructureDataset,
    settings: LearnerSettings,
    checkpoints: Path,
    *,
    initial: InitialWeights | None,
    progress: Progress | None,
) -> Model:
    """Return the trained generator; repeat the call to resume.

    With `early_stopping` the averaged weights are judged on whole specimens that training does
    not see (`HeldOutStructures`), and the length of the training with the smallest distance is
    chosen; then all specimens are trained on for that long, under the same schedule, unless
    `use_all` is off. Checkpoints of that second training lie in `CHECKPOINTS.all`.

    Raises:
        DataError: There is one specimen only, or the folder holds another training.
        ConvergenceError: Training diverged.
    """
    identity = training_identity(dataset, settings, initial)
    stopping, about = settings.early_stopping, {"settings": settings.training, "progress": progress}
    if stopping is None:
        learner, n = learner_of(dataset), len(dataset)
        state = _trained(learner, n, folder=checkpoints, identity=identity, **about)
        return _loaded(learner, state, final=True)
    part, held_out = dataset.split(stopping.held_out_share, seed=settings.training.seed)
    learner = learner_of(part)
    best = BestState(
        checkpoints,
        stopping,
        identity=identity,
        held_out=HeldOutStructures(held_out, samples=stopping.samples, seed=settings.training.seed),
        generator=lambda state: _loaded(learner, state, final=False),
    )
    state = _trained(learner, len(part), folder=checkpoints, identity=identity, watch=best, **about)
    if not stopping.use_all:
        return _loaded(learner, best.state or state, final=True)
    steps = best.best_step or settings.training.steps
    learner = learner_of(dataset)
    state = _trained(
        learner,
        len(dataset),
        folder=checkpoints.with_name(checkpoints.name + ".all"),
        identity={**identity, "steps_taken": steps},
        watch=lambda step, _: step >= steps,
        **about,
    )
    return _loaded(learner, state, final=True)


def training_identity(
    dataset: MicrostructureDataset, settings: LearnerSettings, initial: InitialWeights | None
) -> dict[str, Any]:
    """Return what the checkpoints of a training belong to; options that are off do not count.

    Nor does the matching of samples, which follows: another matching starts from the same net.
    """
    dumped = settings.model_dump()
    apart = ("init_from", "matching")
    named = {k: v for k, v in dumped.items() if v is not None and k not in apart}
    source = {} if initial is None else {"init_from_sha256": initial.digest}
    return {"settings": named, "data": dataset.digest, **source}


def matching_identity(
    dataset: MicrostructureDataset, settings: LearnerSettings, initial: InitialWeights | None
) -> dict[str, Any]:
    """Return what the checkpoints of a matching of samples belong to."""
    matching = settings.model_dump()["matching"]
    return {**training_identity(dataset, settings, initial), "matching": matching}


def _trained(
    learner: Learner, n_samples: int, *, identity: Mapping[str, Any], **about: Any
) -> dict[str, Tensor]:
    return train(learner.objective, learner.draw, n_samples=n_samples, identity=identity, **about)


def _loaded(
    learner: Learner[Objective, Model], state: Mapping[str, Tensor], *, final: bool
) -> Model:
    # A copy while training goes on: making a generator freezes its net.
    objective = learner.objective if final else copy.deepcopy(learner.objective)
    objective.load_state_dict(dict(state))
    return learner.generator(objective, final)
