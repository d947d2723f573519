"""Measured samples of many conditions as the arrays of one stage, and back."""

from collections.abc import Mapping, Sequence

import numpy as np

from generators.microbench_conditions import Measured
from generators.structure_statistics import StructureStatistics

PROPERTY = "property."


def measured_arrays(conditions: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Return the samples of all conditions in a row, and how many each condition has."""
    arrays = {
        "counts": np.array([len(c.statistics) for c in conditions]),
        "distances": np.array([c.distance for c in conditions]),
    }
    for name in conditions[0].statistics.arrays():
        arrays[name] = np.concatenate([c.statistics.arrays()[name] for c in conditions])
    for name in conditions[0].properties:
        values = [c.properties[name] for c in conditions]
        arrays[PROPERTY + name] = np.concatenate(values)
        arrays["solved"] = np.array([len(v) for v in values])
    return arrays


def measured_conditions(arrays: Mapping[str, np.ndarray]) -> list[Measured]:
    """Return the conditions that `measured_arrays` laid out."""
    ends = np.cumsum(arrays["counts"])
    properties = {k.removeprefix(PROPERTY): v for k, v in arrays.items() if k.startswith(PROPERTY)}
    solved_ends = np.cumsum(arrays["solved"]) if properties else np.zeros(len(ends), int)
    names = ("s2", "lineal_path", "surface", "euler")
    everything = StructureStatistics(*(arrays[name] for name in names))
    found = []
    for k, end in enumerate(ends):
        start, solved_start = (0, 0) if k == 0 else (ends[k - 1], solved_ends[k - 1])
        own = {name: v[solved_start : solved_ends[k]] for name, v in properties.items()}
        part = everything.part(slice(start, end))
        found.append(Measured(part, own, float(arrays["distances"][k])))
    return found
