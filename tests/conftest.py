"""Shape checks on every annotated function, an explicit seed, real data by MESOFORGE_DATA."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

PACKAGES = ("physics", "networks", "generators", "surrogates", "optimize", "microstructures")
ROOT = Path(__file__).resolve().parents[1]

# Annotations are checked here and only here; a hook must be in place before the first import.
# The numeric tower lets an int stand for a float, as Python's own typing does.
install_import_hook(
    PACKAGES, "beartype.beartype(conf=__import__('beartype').BeartypeConf(is_pep484_tower=True))"
)

settings.register_profile(
    "ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")
torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; the test is skipped, saying so, where it is absent."""
    folder = Path(os.environ.get("MESOFORGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is absent: no folder {folder}; set MESOFORGE_DATA")
    return folder
