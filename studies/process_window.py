"""The process window: how far the mean property lies from the target around the design."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from generators.generator import ConditionalGenerator
from microstructures import Parameter, ProcessSpace
from microstructures.seeds import derive_seed
from studies.evaluation import Evaluator, as_batch
from studies.run_folder import Stage

WINDOW_TOLERANCE = 1e-3


def map_window(
    evaluator: Evaluator, process: Mapping[str, Any], advance: Callable[[int], None]
) -> Stage:
    """Map the combined relative miss of the mean property over two process parameters.

    The first and the last number among the parameters span the map; the others stay at the
    design. Structures come from the generator with codes drawn from the prior, so the map is the
    process's (as the generator sees it), not this structure's.

    Returns:
        Facts: the axes, space and density of the training data. Arrays: `x (n,)`, `y (n,)`,
        `miss (n, n)` with x first, and the mean of each property `(n, n)`.
    """
    generator, settings = evaluator.models.generator, evaluator.settings
    axes, density = window_axes(generator.space), _training_density(generator)
    if axes is None:
        return Stage({"skipped": "the process has fewer than two numbers to vary", **density})
    units = np.linspace(0.0, 1.0, settings.window_points)
    columns = []
    for count, u in enumerate(units):
        points = [
            {**process, axes[0].name: axes[0].from_unit(u), axes[1].name: axes[1].from_unit(v)}
            for v in units
        ]
        structures = generator.sample(
            points,
            n=settings.window_samples,
            shape=settings.shape,
            seed=derive_seed(settings.seed, "window", count),
        )
        solved = evaluator.solved(as_batch(structures), tolerance=WINDOW_TOLERANCE)
        columns.append({k: v.reshape(len(points), -1).mean(1) for k, v in solved.items()})
        advance(count + 1)
    means = {name: np.stack([column[name] for column in columns]) for name in columns[0]}
    squares = [(means[name] / t - 1) ** 2 for name, t in evaluator.targets.items()]
    arrays = {
        "x": np.array([axes[0].from_unit(u) for u in units], dtype=float),
        "y": np.array([axes[1].from_unit(u) for u in units], dtype=float),
        "miss": np.sqrt(np.sum(squares, axis=0)),
        **means,
    }
    return Stage({"x": _axis(axes[0]), "y": _axis(axes[1]), **density}, arrays)


def window_axes(space: ProcessSpace) -> tuple[Parameter, Parameter] | None:
    """Return the first and last parameter that are numbers, None when there are not two."""
    numbers = [p for p in space if p.scale != "choice"]
    return (numbers[0], numbers[-1]) if len(numbers) > 1 else None


def _training_density(generator: ConditionalGenerator) -> dict[str, Any]:
    density = generator.training_density
    if density is None:
        return {}
    return {"space": generator.space.to_json(), "density": density.to_json()}


def _axis(parameter: Parameter) -> dict[str, Any]:
    return {"name": parameter.name, "unit": parameter.unit, "scale": parameter.scale}
