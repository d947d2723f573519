"""The verb `train`: a generator, a gate, a surrogate of some kind, or a renderer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from microstructures import DataError, MicrostructureDataset
from studies.own_data import located_weights, publish_history, training_notes
from studies.progress import progress_bar
from studies.run_folder import find_folder, open_run
from studies.settings import Settings, resolve_settings
from studies.settings_text import settings_yaml
from studies.training_window import training_part

What = Literal[
    "generator",
    "gate",
    "surrogate",
    "property",
    "active-property",
    "plastic",
    "image-field",
    "micrograph",
]
Family = Literal["diffusion", "gan", "vae"]


class TrainingRun(Settings):
    """What identifies a training run."""

    what: What
    data: str
    settings: dict[str, Any]


def run_training(
    what: What,
    data: Path,
    *,
    settings_file: Path | None,
    values: Mapping[str, Any],
    out: Path,
    dry_run: bool,
    family: Family = "diffusion",
    window: Mapping[str, list[float]] | None = None,
    held_out: Mapping[str, list[float]] | None = None,
    sections: Sequence[Path] = (),
    also: Sequence[Path] = (),
    control: bool = False,
) -> Path | None:
    """Train on a data set, save the model in `out/model` and return that; repeat to resume.

    The family matters for a generator only. `window` and `held_out` take a part of the data
    (`training_part`). `sections` are data sets of sections normal to axis 1 and 2, for a GAN of
    volumes, `also` further data sets for a property surrogate. With `control` a generator that
    starts from saved weights (`init_from`) is also trained from scratch with the same settings,
    in `out/control`.

    Raises:
        MicrostructureError: The data set or a setting does not fit, or training diverged.
    """
    settings = resolve_settings(settings_model(what, family), settings_file, nested(values))
    dataset = MicrostructureDataset.open(find_folder(data, "dataset"))
    dataset = training_part(dataset, window=window or {}, held_out=held_out or {})
    settings, inputs = located_weights(settings)
    if control and not inputs:
        raise DataError("expected --init-from with --control, which trains without those weights")
    for note in training_notes(dataset, settings):
        print(note)
    resolved = settings.model_dump(mode="json")
    if dry_run:
        print(settings_yaml({**resolved, "expected": expected_cost(what, dataset, settings)}))
        return None
    if also and what != "property":
        raise DataError(f"expected further data only for train property, got it for {what}")
    folders = [*sections, *also]
    others = [MicrostructureDataset.open(find_folder(folder, "dataset")) for folder in folders]
    digests = "+".join(part.digest for part in (dataset, *others))
    identity = TrainingRun(what=what, data=digests, settings=resolved)
    with open_run(out, identity, verb="train", inputs=inputs) as run:
        train_model(what, dataset, settings, run.path / "model", others=others)
        publish_history(run.path, "model")
        if control:
            scratch = settings.model_copy(update={"init_from": None})
            train_model(what, dataset, scratch, run.path / "control", others=others)
            publish_history(run.path, "control")
        return run.path / "model"


def settings_model(what: What, family: Family = "diffusion") -> type[BaseModel]:
    """Return the settings model of a kind of training."""
    match what:
        case "generator":
            from generators.families import generator_settings

            return generator_settings(family)
        case "surrogate":
            from surrogates.training import SurrogateSettings

            return SurrogateSettings
        case "property":
            from surrogates.property_training import PropertySettings

            return PropertySettings
        case "active-property":
            from surrogates.active_training import ActivePropertySettings

            return ActivePropertySettings
        case "plastic":
            from surrogates.plastic_training import PlasticSettings

            return PlasticSettings
        case "image-field":
            from surrogates.image_field_training import ImageFieldSettings

            return ImageFieldSettings
        case "micrograph":
            from generators.micrograph_training import MicrographSettings

            return MicrographSettings
        case _:
            return GateSettings


class GateSettings(Settings):
    """The gate has nothing to set: it is fitted to the data's own scatter."""


def train_model(
    what: What,
    dataset: MicrostructureDataset,
    settings: BaseModel,
    folder: Path,
    *,
    others: Sequence[MicrostructureDataset] = (),
) -> None:
    """Train one model on a data set into a folder; nothing happens where it stands already.

    `others` are the further data sets of models that take some.
    """
    if (folder / "manifest.json").exists():
        return
    match what:
        case "generator":
            from generators.families import train_generator

            steps = settings.training.steps  # pyright: ignore[reportAttributeAccessIssue]
            with progress_bar("train generator", steps) as advance:
                train_generator(
                    dataset,
                    settings,
                    folder,
                    sections=others,
                    progress=lambda k, *_: advance(k),
                )
        case "surrogate" | "active-property" | "plastic" | "image-field":
            trainer = field_trainer(what)
            steps = settings.training.steps  # pyright: ignore[reportAttributeAccessIssue]
            with progress_bar(f"train {what}", steps) as advance:
                trainer(dataset, settings, folder, progress=lambda k, *_: advance(k))
        case "property":
            from surrogates.property_training import PropertySettings, train_property_surrogate

            assert isinstance(settings, PropertySettings)
            with progress_bar("train property", settings.training.steps) as advance:
                train_property_surrogate(
                    dataset,
                    settings,
                    folder,
                    others=others,
                    progress=lambda k, *_: advance(k),
                )
        case "micrograph":
            from generators.micrograph_training import MicrographSettings, train_micrographs

            assert isinstance(settings, MicrographSettings)
            with progress_bar("train micrograph", settings.training.steps) as advance:
                train_micrographs(dataset, settings, folder, progress=lambda k, *_: advance(k))
        case _:
            from physics import CorrelationGate

            with progress_bar("fit gate", 1) as advance:
                CorrelationGate.fit(dataset).save(folder)
                advance(1)


def field_trainer(what: What) -> Callable[..., object]:
    """Return what trains a surrogate of fields: takes data set, settings, folder and progress."""
    match what:
        case "active-property":
            from surrogates.active_training import train_actively

            return train_actively
        case "plastic":
            from surrogates.plastic_training import train_plastic_surrogate

            return train_plastic_surrogate
        case "image-field":
            from surrogates.image_field_training import train_image_field

            return train_image_field
        case _:
            from surrogates.training import train_field_surrogate

            return train_field_surrogate


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"training": {"steps": 5}} for {"training.steps": 5}.

    Raises:
        DataError: A name is both a setting and a group of settings.
    """
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise DataError(f"expected {group} to be a group of settings, got a value for it")
        place[last] = value
    return tree


def expected_cost(
    what: What, dataset: MicrostructureDataset, settings: BaseModel
) -> dict[str, Any]:
    """Return expected memory (MB), disk (MB) and time (min), as measured on two cores."""
    voxels = dataset.phases[0].numel() / 64**2
    training = getattr(settings, "training", None)
    steps = training.steps * training.batch_size / 16 if training else 0
    stopping = getattr(settings, "early_stopping", None)
    steps *= getattr(getattr(settings, "active", None), "rounds", 1)
    if stopping is not None and stopping.use_all:
        steps *= 2  # at most: once to find the length, once on everything
    return {
        "memory_mb": round(1200 + dataset.phases.numel() / 1e6),
        "disk_mb": 60 if training else 1,
        "minutes": round(
            (20 + voxels * (steps * 0.2 if training else 0.02 * len(dataset))) / 60, 1
        ),
    }
