"""A small design space with every kind of coordinate."""

import pytest

from microstructures import Parameter, ProcessSpace
from optimize import DesignSpace


@pytest.fixture(scope="session")
def mixed():
    """Four process parameters, one of each scale, and two latent numbers."""
    parameters = [
        Parameter("temperature_k", "K", 600.0, 700.0),
        Parameter("time_h", "h", 1.0, 100.0, "log"),
        Parameter("passes", "-", 1.0, 5.0, "integer"),
        Parameter("quench", "-", scale="choice", choices=("air", "oil", "water")),
    ]
    return DesignSpace(ProcessSpace(parameters), latent_dim=2)
