"""Nets of any spatial dimension, the one training loop, saving and loading."""

from networks.conditioning import ProcessEmbedding
from networks.saving import load_model, save_model
from networks.training import TrainingSettings, train
from networks.unet import Encoder, UNet

__all__ = [
    "Encoder",
    "ProcessEmbedding",
    "TrainingSettings",
    "UNet",
    "load_model",
    "save_model",
    "train",
]
