"""The verb `init`: the settings of every verb as commented YAML."""

from pathlib import Path

from pydantic import BaseModel

from generators.diffusion_training import DiffusionSettings
from generators.gan_training import GanSettings
from generators.micrograph_training import MicrographSettings
from generators.vae_training import VaeSettings
from microstructures import DataError
from microstructures.importing import ImportSettings
from microstructures.publishing import publish_text
from microstructures.sections import SectionSettings
from studies.settings import (
    DemoSettings,
    DesignSettings,
    ExplainSettings,
    GenerateSettings,
    PickSettings,
    PredictSettings,
    SimulateSettings,
)
from studies.settings_text import commented_yaml
from surrogates.active_training import ActivePropertySettings
from surrogates.image_field_training import ImageFieldSettings
from surrogates.measured_training import MeasuredSettings
from surrogates.plastic_training import PlasticSettings
from surrogates.property_training import PropertySettings
from surrogates.training import SurrogateSettings


def settings_files() -> dict[str, type[BaseModel]]:
    """Return the settings model behind each file that `init` writes."""
    return {
        "demo.yaml": DemoSettings,
        "design.yaml": DesignSettings,
        "simulate.yaml": SimulateSettings,
        "generate.yaml": GenerateSettings,
        "predict.yaml": PredictSettings,
        "explain.yaml": ExplainSettings,
        "pick.yaml": PickSettings,
        "import.yaml": ImportSettings,
        "import-sections.yaml": SectionSettings,
        "train-generator.yaml": DiffusionSettings,
        "train-generator-gan.yaml": GanSettings,
        "train-generator-vae.yaml": VaeSettings,
        "train-surrogate.yaml": SurrogateSettings,
        "train-property.yaml": PropertySettings,
        "train-active-property.yaml": ActivePropertySettings,
        "train-measured.yaml": MeasuredSettings,
        "train-plastic.yaml": PlasticSettings,
        "train-image-field.yaml": ImageFieldSettings,
        "train-micrograph.yaml": MicrographSettings,
    }


def write_settings(folder: Path) -> list[Path]:
    """Write every settings file into a folder.

    Raises:
        DataError: One of them is there already.
    """
    files = settings_files()
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise DataError(
            f"expected no settings in {folder} yet, found {', '.join(there)}; choose another folder"
        )
    return [publish_text(folder / name, commented_yaml(model)) for name, model in files.items()]
