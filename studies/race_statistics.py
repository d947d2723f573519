"""Correlation and phase-field kernels against their peers, CPU seconds on one thread."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from physics import two_point_correlation
from physics.processes.cahn_hilliard import cahn_hilliard
from studies.stopwatch import installed_version, one_thread, race


@dataclass(frozen=True)
class Contest:
    """One work done by us and by a peer; `peer_seconds` is None where the peer is absent.

    `difference` is the largest difference of the two results, where they are the same quantity.
    """

    work: str
    peer: str
    seconds: float
    peer_seconds: float | None
    difference: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the peer."""
        return None if self.peer_seconds is None else self.peer_seconds / self.seconds


def race_correlation(
    *, images: int = 64, side: int = 128, volume: int = 128, repetitions: int = 3, seed: int = 0
) -> list[Contest]:
    """Race S2 of a stack of images and of one volume against pymks and porespy.

    pymks computes periodic and non-periodic maps, porespy non-periodic radial curves: its result
    is another quantity, and ours of the same work includes the radial mean. A batch is one call
    for us and for pymks, one call per image for porespy.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    with one_thread():
        for shape in ((images, side, side), (1, volume, volume, volume)):
            a = torch.rand(shape, generator=generator) < 0.4
            name = f"{shape[0]} x {side}^2" if len(shape) == 3 else f"{volume}^3"
            for periodic in (True, False):
                label = f"S2 {name} {'periodic' if periodic else 'not periodic'}"
                rows.append(_against_pymks(a, periodic, label, repetitions))
            rows.append(_against_porespy(a, f"S2 {name} not periodic", repetitions))
    return rows


def _against_pymks(a: torch.Tensor, periodic: bool, label: str, repetitions: int) -> Contest:
    own = partial(two_point_correlation, a.float(), periodic=periodic)
    if installed_version("pymks") is None:
        return Contest(label, "pymks", race({"own": own}, repetitions=repetitions)["own"], None)
    from pymks.fmks.correlations import two_point_stats  # pyright: ignore[reportMissingImports]

    fields = a.numpy().astype(float)

    def peer() -> np.ndarray:
        return np.asarray(two_point_stats(fields, fields, periodic_boundary=periodic))

    taken = race({"own": own, "peer": peer}, repetitions=repetitions)
    difference = None
    if periodic:
        axes = tuple(range(1, a.ndim))
        ours, theirs = torch.fft.fftshift(own(), dim=axes).numpy(), peer()
        # pymks leaves out the lag of half an even axis.
        same = tuple(slice(n - m, n) for n, m in zip(ours.shape, theirs.shape, strict=True))
        difference = float(np.abs(ours[same] - theirs).max())
    return Contest(label, "pymks", taken["own"], taken["peer"], difference)


def _against_porespy(a: torch.Tensor, label: str, repetitions: int) -> Contest:
    own = partial(two_point_correlation, a.float(), periodic=False)
    if installed_version("porespy") is None:
        return Contest(label, "porespy", race({"own": own}, repetitions=repetitions)["own"], None)
    from porespy.metrics import two_point_correlation as peer_correlation

    images = a.numpy()

    def peer() -> list[object]:
        return [peer_correlation(image) for image in images]

    taken = race({"own": own, "peer": peer}, repetitions=repetitions)
    return Contest(label, "porespy", taken["own"], taken["peer"])


def race_cahn_hilliard(
    *, side: int = 256, steps: int = 100, repetitions: int = 3, seed: int = 0
) -> list[Contest]:
    """Race one time step of the Cahn-Hilliard equation against evoxels' spectral IMEX solver.

    Seconds per step from the difference between two runs of different length, so that set-up does
    not count; both in evoxels' single precision, its thin axis last (as one writes a 2-D
    field) and first (its faster layout). Our rows name the order of the step: evoxels' is
    of first order.
    """
    generator = torch.Generator().manual_seed(seed)
    start = 0.1 * torch.randn(1, side, side, generator=generator)
    rows = []
    with one_thread():
        peers = {
            "evoxels (x, y, 1)": _evoxels_steps(start[0].unsqueeze(2), repetitions, steps),
            "evoxels (1, x, y)": _evoxels_steps(start, repetitions, steps),
        }
        orders: tuple[Literal[1, 2], ...] = (1, 2)
        for order in orders:

            def own(n: int, order: Literal[1, 2] = order) -> Callable[[], object]:
                return partial(
                    cahn_hilliard,
                    start,
                    spacing=torch.ones(1, dtype=torch.float64),
                    end=torch.full((1,), 0.25 * n, dtype=torch.float64),
                    step=0.25,
                    order=order,
                )

            label = f"Cahn-Hilliard {side}^2, one step of order {order}"
            seconds = _per_step(own, repetitions, steps)
            rows += [Contest(label, peer, seconds, taken) for peer, taken in peers.items()]
    return rows


def _per_step(run: Callable[[int], Callable[[], object]], repetitions: int, steps: int) -> float:
    taken = race({"short": run(steps), "long": run(3 * steps)}, repetitions=repetitions)
    return (taken["long"] - taken["short"]) / (2 * steps)


def _evoxels_steps(start: torch.Tensor, repetitions: int, steps: int) -> float | None:
    if installed_version("evoxels") is None:
        return None
    import evoxels  # pyright: ignore[reportMissingImports]
    from evoxels.precompiled_solvers.cahn_hilliard import run_cahn_hilliard_solver  # pyright: ignore[reportMissingImports]

    space = (start.shape[0], start.shape[1], start.shape[2])

    def run(n: int) -> Callable[[], object]:
        def work() -> None:
            fields = evoxels.VoxelFields(space)
            # evoxels takes concentrations from 0 to 1.
            fields.add_field("c", 0.5 + 0.5 * start.numpy())
            run_cahn_hilliard_solver(
                fields,
                "c",
                "torch",
                jit=True,
                device="cpu",
                time_increment=0.1,
                frames=1,
                max_iters=n,
                verbose=False,
            )

        return work

    return _per_step(run, repetitions, steps)
