"""Training on own maps: where it starts from, what the data allows, and where it was stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from microstructures import MicrostructureDataset
from microstructures.publishing import folder_digest, publish_json
from studies.run_folder import find_folder


def located_weights(settings: BaseModel) -> tuple[BaseModel, dict[str, str]]:
    """Return settings whose `init_from` names a model's own folder, and the hash of its weights.

    Raises:
        CheckpointError: There is no such model.
    """
    name = getattr(settings, "init_from", None)
    if name is None:
        return settings, {}
    from generators.generator import SHIPPED
    from networks.saving import resolve_model

    found = find_folder(Path(name), "model")
    digest = folder_digest(resolve_model(str(found), SHIPPED))
    located = settings.model_copy(update={"init_from": str(found)})
    return located, {"init_from_sha256": digest}


def training_notes(dataset: MicrostructureDataset, settings: BaseModel) -> list[str]:
    """Return what is said before a training: which weights are taken over, which axes are turned.

    Raises:
        CheckpointError: The weights to start from do not fit the net.
    """
    notes = []
    if "auto" in (getattr(settings, "isotropic", None), getattr(settings, "flips", None)):
        from generators.axis_symmetry import AxisSymmetry

        notes.append(str(AxisSymmetry.of(dataset)))
    if getattr(settings, "init_from", None) is not None:
        notes.append(_taken_over(dataset, settings))
    return notes


def _taken_over(dataset: MicrostructureDataset, settings: Any) -> str:
    from generators import (
        ConditionalDiffusion,
        ConditionalGAN,
        ConditionalVAE,
        diffusion_training,
        gan_training,
        vae_training,
    )
    from generators.initial_weights import initial_weights

    match settings:
        case diffusion_training.DiffusionSettings():
            family = ConditionalDiffusion
            net = diffusion_training.initial_objective(dataset, settings).denoiser
        case gan_training.GanSettings():
            family, net = ConditionalGAN, gan_training.initial_objective(dataset, settings).net
        case _:
            family, net = ConditionalVAE, vae_training.initial_objective(dataset, settings).net
    found = initial_weights(settings.init_from, family, dataset)
    return "" if found is None else str(found.copy_to(net))


def publish_history(run: Path, model: str) -> None:
    """Write `early-stopping.json` (or `control-early-stopping.json`) where it was used, and say so.

    It holds the floor by measure and a row per judgement: step, distance (mean of error over
    floor), errors by measure.
    """
    from generators.early_stopping import early_stopping_history

    found = early_stopping_history(run / f"{model}.checkpoints")
    if found is None:
        return
    prefix = "" if model == "model" else f"{model}-"
    kept = {key: found[key] for key in ("best_step", "stopped", "floor", "history")}
    publish_json(run / f"{prefix}early-stopping.json", kept)
    print(f"{model}: {stopping_sentence(found)}")


def stopping_sentence(found: Mapping[str, Any]) -> str:
    """Return in words where a training was nearest to the held-out specimens."""
    rows = {row["step"]: row["distance"] for row in found["history"]}
    if not found["best_step"]:
        return "no judgement on held-out specimens gave a number; the last weights are kept"
    last = max(rows)
    ended = f"stopped at step {last}" if found["stopped"] else f"not stopped by step {last}"
    return (
        f"nearest to the held-out specimens at step {found['best_step']} (distance "
        f"{rows[found['best_step']]:.2f} times their own floor), {ended}"
    )


def history_figure(run: Path) -> str:
    """Return the distances by which early stopping judged a run's model, its control's beside it.

    Empty where the run has none.
    """
    from studies.figures import DESIGN, RIVAL, drawing

    found = {
        label: json.loads(path.read_text())
        for label, path in (
            ("model", run / "early-stopping.json"),
            ("control, from scratch", run / "control-early-stopping.json"),
        )
        if path.is_file()
    }
    if not found:
        return ""
    with drawing(1, width=4.2, height=2.6) as made:
        axis = made.axes[0, 0]
        for colour, (label, facts) in zip((DESIGN, RIVAL), found.items(), strict=False):
            rows = [(r["step"], r["distance"]) for r in facts["history"] if r["distance"]]
            axis.plot(*zip(*rows, strict=True), ".-", color=colour, label=label)
            best = [row for row in rows if row[0] == facts["best_step"]]
            axis.plot(*zip(*best, strict=True), "o", color=colour, markersize=8)
        axis.set_xlabel("training steps")
        axis.set_ylabel("distance from held-out\nspecimens, over floor (-)")
        axis.set_ylim(bottom=0)
        axis.legend()
        return made.data_uri()
