"""How far a generator is from held-out real structures, as one number to stop a training by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from generators.ensemble_errors import (
    MEANING,
    all_samples,
    ensemble_errors,
    random_splits,
    source_numbers,
)
from generators.structure_statistics import StructureStatistics, measure_structures
from microstructures import DataError, Microstructure
from microstructures.dataset import MicrostructureDataset
from microstructures.seeds import derive_seed

JUDGED = ("s2", "lineal path", "surface", "euler")
LEAST_SAMPLES = 8  # of one process point, for means of its own
LEAST_FLOOR = 1e-3  # halves of structures all alike do not differ, but no generator is as good


@runtime_checkable
class Sampler(Protocol):
    """Generates one structure for every process."""

    def sample(
        self, process: Sequence[Mapping[str, Any]], *, shape: Sequence[int], seed: int
    ) -> Sequence[Microstructure]:
        """Return structures in the order of the processes."""
        ...


@dataclass(frozen=True)
class HeldOutDistance:
    """Errors of a generator on held-out structures.

    Args:
        total: Mean over the measures of error / floor; 1 where generated structures differ from
            the held-out ones as halves of the held-out ones differ from each other.
        errors: Error by measure (MicroBench M2-M4), mean over process points.
    """

    total: float
    errors: dict[str, float]


@dataclass(frozen=True)
class _Condition:
    processes: list[dict[str, Any]]
    real: StructureStatistics


class HeldOutStructures:
    """Held-out structures, measured once, against which a generator is judged again and again.

    Process points with at least 8 samples are judged one by one, all others together, each with
    the real samples' own mix of processes. The floor of a measure is its error between random
    halves of all held-out samples, by source map where there are several (median over 200 splits,
    since the relative error of a phase that one half lacks has no bound); it weighs the measures
    against each other and does not depend on the generator.

    Args:
        dataset: Held-out samples, at least 4.
        samples: Structures that are generated for each judgement, in all.
        seed: Draws splits and structures: the same ones every time.

    Raises:
        DataError: There are too few samples.
    """

    def __init__(self, dataset: MicrostructureDataset, *, samples: int, seed: int) -> None:
        if len(dataset) < 4:
            raise DataError(
                f"expected at least 4 held-out samples to judge by, got {len(dataset)}; hold out "
                "more, or train without early_stopping"
            )
        self.shape, self.samples, self.seed = dataset.shape, samples, seed
        self.n_phases, self.periodic = dataset.n_phases, dataset.periodic
        statistics = measure_structures(
            dataset.phases, n_phases=dataset.n_phases, periodic=dataset.periodic
        )
        # A sample cannot show less than one particle: structures without any are no reason to
        # call every particle an error without bound.
        least = 1 / math.prod(dataset.shape)
        self.scatter = tuple(
            np.maximum(values.std(0), least) for values in (statistics.surface, statistics.euler)
        )
        self.floor = _floor(statistics, self.scatter, map_names(dataset), seed)
        self.conditions = [
            _Condition([dict(dataset[int(k)].process) for k in rows], statistics.part(rows))
            for rows in _by_process(dataset)
        ]

    def judge(self, generator: Sampler) -> HeldOutDistance:
        """Return how far a generator is from the held-out structures."""
        each = max(2, -(-self.samples // len(self.conditions)))
        errors = np.stack([self._errors(generator, c, each) for c in self.conditions]).mean(0)
        found = dict(zip(MEANING, errors.tolist(), strict=True))
        ratios = [found[name] / self.floor[name] for name in JUDGED]
        return HeldOutDistance(float(np.mean(ratios)), {name: found[name] for name in JUDGED})

    def _errors(
        self, generator: Sampler, condition: _Condition, n: int
    ) -> Float[np.ndarray, " metric"]:
        chosen = [int(k * len(condition.real) / n) for k in range(n)]
        with torch.no_grad():
            made = generator.sample(
                [condition.processes[k] for k in chosen],
                shape=self.shape,
                seed=derive_seed(self.seed, "held out"),
            )
        measured = measure_structures(made, n_phases=self.n_phases, periodic=self.periodic)
        return ensemble_errors(
            measured,
            condition.real,
            all_samples(n),
            all_samples(len(condition.real)),
            scatter=(self.scatter[0], self.scatter[1]),
        )[0]


def map_names(dataset: MicrostructureDataset) -> Sequence[str] | None:
    """Return the source map of every sample of imported data, None where each is its own."""
    return dataset.sources if "import" in dataset.about else None


def _floor(
    statistics: StructureStatistics,
    scatter: tuple[np.ndarray, ...],
    groups: Sequence[str] | None,
    seed: int,
) -> dict[str, float]:
    sources = source_numbers(groups, len(statistics))
    if sources.max() == 0:
        sources = np.arange(len(statistics))
    draw = np.random.default_rng(derive_seed("held out floor", seed))
    left, right, _ = random_splits(sources, draw)
    between = ensemble_errors(statistics, statistics, left, right, scatter=(scatter[0], scatter[1]))
    middle = np.median(between, axis=0)
    return dict(zip(MEANING, np.maximum(middle, LEAST_FLOOR).tolist(), strict=True))


def _by_process(dataset: MicrostructureDataset) -> list[np.ndarray]:
    units = dataset.process_units.nan_to_num(-1.0).numpy().round(6)
    rows, index = np.unique(units, axis=0, return_inverse=True)
    groups = [np.flatnonzero(index.ravel() == k) for k in range(len(rows))]
    own = [g for g in groups if len(g) >= LEAST_SAMPLES]
    rest = [g for g in groups if len(g) < LEAST_SAMPLES]
    return own + ([np.sort(np.concatenate(rest))] if rest else [])
