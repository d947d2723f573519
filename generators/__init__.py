"""Process parameters (and a latent code) → microstructures."""

from generators.diffusion import ConditionalDiffusion
from generators.diffusion_training import DiffusionSettings, train_diffusion

__all__ = ["ConditionalDiffusion", "DiffusionSettings", "train_diffusion"]
