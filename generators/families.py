"""The families of generators: which class a saved model belongs to, which training it takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from generators.diffusion import ConditionalDiffusion
from generators.diffusion_training import DiffusionSettings, train_diffusion
from generators.gan import ConditionalGAN
from generators.gan_training import GanSettings, train_gan
from generators.generator import SHIPPED, ConditionalGenerator
from generators.section_diffusion import SectionDiffusion
from generators.section_training import train_gan_on_sections
from generators.training_data import check_training_data
from generators.vae import ConditionalVAE
from generators.vae_training import VaeSettings, train_vae
from microstructures import CheckpointError, DataError
from microstructures.dataset import MicrostructureDataset
from microstructures.publishing import open_verified
from networks.saving import resolve_model
from networks.training import Progress

Family = Literal["diffusion", "gan", "vae"]


def load_generator(folder_or_name: str | Path) -> ConditionalGenerator:
    """Load a saved generator of any family, or shipped weights by name.

    Raises:
        CheckpointError: No such model, it is no generator, or its files were altered.
    """
    folder = resolve_model(folder_or_name, SHIPPED)
    match name := open_verified(folder, kind="model").get("class"):
        case "ConditionalDiffusion":
            return ConditionalDiffusion.from_pretrained(folder)
        case "ConditionalVAE":
            return ConditionalVAE.from_pretrained(folder)
        case "ConditionalGAN":
            return ConditionalGAN.from_pretrained(folder)
        case "SectionDiffusion":
            return SectionDiffusion.from_pretrained(folder)
        case _:
            raise CheckpointError(
                f"expected a generator in {folder}, found a {name}; choose another folder"
            )


def generator_settings(family: Family) -> type[BaseModel]:
    """Return the settings model of a family's net and training."""
    match family:
        case "diffusion":
            return DiffusionSettings
        case "vae":
            return VaeSettings
        case "gan":
            return GanSettings


def train_generator(
    dataset: MicrostructureDataset,
    settings: BaseModel,
    out: str | Path,
    *,
    sections: Sequence[MicrostructureDataset] = (),
    progress: Progress | None = None,
    card: str = "",
) -> ConditionalGenerator:
    """Train the family whose settings these are and save the model; repeat the call to resume.

    For a GAN of volumes the data are plane sections, and `sections` those normal to axis 1 and 2
    where they differ from those normal to axis 0 (`train_gan_on_sections`).

    Raises:
        DataError: The data does not fit the net.
        ConvergenceError: Training diverged.
    """
    for data in (dataset, *sections):
        check_training_data(data, fine_tuned=getattr(settings, "init_from", None) is not None)
    match settings:
        case GanSettings() if settings.volumes or sections:
            kinds = [dataset, *sections]
            return train_gan_on_sections(kinds, settings, out, progress=progress, card=card)
        case _ if sections:
            raise DataError(
                f"expected sections for a GAN only, got {len(sections)} data sets of them and "
                f"{type(settings).__name__}; train one model per data set instead"
            )
        case DiffusionSettings():
            return train_diffusion(dataset, settings, out, progress=progress, card=card)
        case VaeSettings():
            return train_vae(dataset, settings, out, progress=progress, card=card)
        case GanSettings():
            return train_gan(dataset, settings, out, progress=progress, card=card)
        case _:
            raise DataError(f"expected the settings of a generator, got {type(settings).__name__}")
