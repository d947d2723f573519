"""The family of a design: what its process makes, and where the design lies in it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from microstructures.seeds import derive_seed
from studies.evaluation import Evaluator
from studies.run_folder import Stage

DRAWS = 3


def describe_family(evaluator: Evaluator, phases: np.ndarray, process: Mapping[str, Any]) -> Stage:
    """Return the design's two-point curve, its family's band, and other draws of the generator.

    Arrays: `s2` of phase 1 at the lags `band_lag_um`, `band_mean`, `band_lower`, `band_upper`
    (95 % of real samples at each lag), `draws (n, *space)`.
    """
    gate, settings = evaluator.models.gate, evaluator.settings
    band = gate.band(dict(process))
    others = evaluator.models.generator.sample(
        dict(process), n=DRAWS, shape=settings.shape, seed=derive_seed(settings.seed, "family")
    )
    arrays = {
        "s2": gate.curve(torch.from_numpy(np.array(phases))[None])[0].numpy(),
        "band_lag_um": band.lag_um,
        "band_mean": band.expected,
        "band_lower": band.lower,
        "band_upper": band.upper,
        "draws": np.stack([other.phases for other in others]),
    }
    return Stage({}, arrays)
