"""Process parameters (and a latent code) → microstructures."""

from generators.diffusion import ConditionalDiffusion
from generators.diffusion_training import DiffusionSettings, train_diffusion
from generators.families import load_generator
from generators.gan import ConditionalGAN
from generators.gan_training import GanSettings, train_gan
from generators.given_voxels import place_window
from generators.micrograph import MicrographRenderer
from generators.section_diffusion import SectionDiffusion
from generators.vae import ConditionalVAE
from generators.vae_training import VaeSettings, train_vae
from microstructures.structure import GeneratedMicrostructure

__all__ = [
    "ConditionalDiffusion",
    "ConditionalGAN",
    "ConditionalVAE",
    "DiffusionSettings",
    "GanSettings",
    "GeneratedMicrostructure",
    "MicrographRenderer",
    "SectionDiffusion",
    "VaeSettings",
    "load_generator",
    "place_window",
    "train_diffusion",
    "train_gan",
    "train_vae",
]
