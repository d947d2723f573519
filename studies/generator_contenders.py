"""Who takes part in a generator benchmark: trained models, with what they cost."""

import hashlib
import re
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

import generators
from generators.generator import ConditionalGenerator
from generators.microbench_voxels import undecided_share
from generators.structure_statistics import as_labels
from microstructures.publishing import sha256
from microstructures.seeds import derive_seed, generator_for
from networks.saving import resolve_model
from studies.models import load_generator
from studies.run_folder import find_folder
from studies.stopwatch import one_thread

DECODED_POINTS, DECODED = 8, 4
DURATION = r"(\d+(?:\.\d+)?\s+(?:CPU\s+)?(?:minutes|min|hours|h)\b)"
TRAINED = re.compile(rf"\*\*Training time\*\*:?\s+{DURATION}", re.IGNORECASE)


@dataclass(frozen=True)
class Contender:
    """A trained generator with the name it goes by, and the digest of its net and weights."""

    name: str
    model: ConditionalGenerator
    digest: str
    card: str

    @property
    def stage(self) -> str:
        """Name that its stages carry: weights made again are another contender."""
        return f"{re.sub(r'[^A-Za-z0-9-]+', '-', self.name)}-{self.digest[:8]}"

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.model.net.parameters())

    @property
    def training_time(self) -> str:
        """Training time as the card tells it, or an empty text.

        It stands after "**Training time**"; in a card without this mark it is the first duration.
        """
        found = TRAINED.search(self.card) or re.search(DURATION, self.card)
        return "" if found is None else " ".join(found.group(1).split())


def load_contenders(names: Sequence[str]) -> list[Contender]:
    """Load models; those of one name are told apart by their digest.

    Raises:
        CheckpointError: A model is missing, or its files were altered.
    """
    found = [load_contender(name) for name in names]
    shown = [c.name for c in found]
    return [
        replace(c, name=f"{c.name} {c.digest[:6]}") if shown.count(c.name) > 1 else c for c in found
    ]


def load_contender(name: str) -> Contender:
    """Load a model by shipped name or folder.

    Raises:
        CheckpointError: No such model, or its files were altered.
    """
    folder = resolve_model(
        str(find_folder(Path(name), "model")), Path(str(generators.__file__)).parent / "weights"
    )
    card = folder / "card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    shown = name if not Path(name).exists() else Path(name).resolve().name
    return Contender(shown, load_generator(name), _weights_digest(folder), text)


def _weights_digest(folder: Path) -> str:
    """Return the digest of config and weights: a card that is written later changes nothing."""
    parts = [sha256(folder / name) for name in ("config.json", "model.safetensors")]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Drawn:
    """Samples of all conditions, and what they cost.

    Args:
        labels: Phases, `(condition * n, *space)`.
        cpu_seconds: Per sample, one thread.
        peak_gb: Most memory that the process has held so far.
        flagged: Samples that say they are extrapolated.
    """

    labels: Integer[Tensor, "sample *space"]
    cpu_seconds: float
    peak_gb: float
    flagged: int


def draw_samples(
    model: ConditionalGenerator,
    points: Sequence[Mapping[str, Any]],
    *,
    n: int,
    shape: Sequence[int],
    seed: int,
    extrapolate: bool = False,
) -> Drawn:
    """Draw n samples at every process point on one thread."""
    parts, flagged = [], 0
    with one_thread(), torch.no_grad():
        started = time.process_time()
        for k, point in enumerate(points):
            own = derive_seed(seed, "made", k)
            drawn = model.sample(point, n=n, shape=shape, seed=own, extrapolate=extrapolate)
            parts.append(as_labels(drawn))
            flagged += sum(getattr(sample, "extrapolated", False) for sample in drawn)
        seconds = time.process_time() - started
    # Linux counts in kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return Drawn(torch.cat(parts), seconds / (n * len(points)), peak, flagged)


def undecided(
    model: ConditionalGenerator,
    points: Sequence[Mapping[str, Any]],
    *,
    shape: Sequence[int],
    seed: int,
) -> float:
    """Return the share of undecided voxels in soft samples of a few points, before any cut."""
    chosen = np.linspace(0, len(points) - 1, min(DECODED_POINTS, len(points))).astype(int)
    shares = []
    with one_thread(), torch.no_grad():
        for k in chosen:
            codes = torch.randn(
                (DECODED, model.latent_dim), generator=generator_for(seed, "undecided", int(k))
            )
            soft = model.decode(
                codes, points[k], shape=shape, seed=derive_seed(seed, "undecided", int(k))
            )
            shares.append(undecided_share(soft))
    return float(np.mean(shares))
