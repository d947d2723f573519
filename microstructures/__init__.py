"""What a microstructure is: structures, process spaces, datasets, files."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from microstructures.errors import (
    CheckpointError,
    ConvergenceError,
    DataError,
    MicrostructureError,
)
from microstructures.process_space import Parameter, ProcessSpace
from microstructures.publishing import open_verified, publish
from microstructures.structure import Microstructure

if TYPE_CHECKING:
    from microstructures.dataset import DatasetBuilder, MicrostructureDataset
    from microstructures.importing import ImportSettings, import_maps
    from microstructures.reading import read_microstructure
    from microstructures.settings import load_settings
    from microstructures.vtkhdf import write_vtkhdf

__all__ = [
    "CheckpointError",
    "ConvergenceError",
    "DataError",
    "DatasetBuilder",
    "ImportSettings",
    "Microstructure",
    "MicrostructureDataset",
    "MicrostructureError",
    "Parameter",
    "ProcessSpace",
    "import_maps",
    "load_settings",
    "open_verified",
    "publish",
    "read_microstructure",
    "write_vtkhdf",
]

# Names that need torch, h5py or pydantic load on first use: the command line starts without them.
_ON_FIRST_USE = {
    "DatasetBuilder": "dataset",
    "ImportSettings": "importing",
    "MicrostructureDataset": "dataset",
    "import_maps": "importing",
    "load_settings": "settings",
    "read_microstructure": "reading",
    "write_vtkhdf": "vtkhdf",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_FIRST_USE[name]}"), name)
