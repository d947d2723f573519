"""What a microstructure is: structures, process spaces, datasets, files."""

from microstructures.errors import (
    CheckpointError,
    ConvergenceError,
    DataError,
    MicrostructureError,
)
from microstructures.process_space import Parameter, ProcessSpace
from microstructures.publishing import open_verified, publish
from microstructures.structure import Microstructure

__all__ = [
    "CheckpointError",
    "ConvergenceError",
    "DataError",
    "Microstructure",
    "MicrostructureError",
    "Parameter",
    "ProcessSpace",
    "open_verified",
    "publish",
]
