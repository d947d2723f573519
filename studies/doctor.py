"""The verb `doctor`: does this installation work, and does its solver tell the truth?"""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from microstructures import MicrostructureError, open_verified
from microstructures.publishing import MANIFEST

PACKAGES = ("torch", "numpy", "botorch", "diffusers", "neuraloperator", "h5py", "accelerate")
Finding = tuple[bool, str]


def examine() -> bool:
    """Print a table of findings and return whether everything works."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"mesoforge {version('mesoforge')}", title_justify="left")
    for heading in ("check", "finding", ""):
        table.add_column(heading, overflow="fold")
    healthy = True
    for name, check in _checks():
        fine, finding = check()
        healthy &= fine
        table.add_row(name, finding, "[green]ok[/]" if fine else "[red]broken[/]")
    Console().print(table)
    return healthy


def _checks() -> list[tuple[str, Callable[[], Finding]]]:
    checks: list[tuple[str, Callable[[], Finding]]] = [("python", _python)]
    checks += [(name, lambda name=name: _package(name)) for name in PACKAGES]
    checks += [("threads", _threads), ("memory", _memory), ("disk here", _disk)]
    checks += [
        (f"weights {folder.name}", lambda folder=folder: _weights(folder))
        for folder in shipped_weights()
    ]
    return [*checks, ("solver", _solver)]


def shipped_weights() -> list[Path]:
    """Return the folders of the weights that come with this installation."""
    import generators
    import surrogates

    roots = [Path(str(package.__file__)).parent / "weights" for package in (generators, surrogates)]
    return [p for root in roots if root.is_dir() for p in sorted(root.iterdir()) if p.is_dir()]


def laminate_error() -> float:
    """Return the relative error of the solver's C11 across a laminate.

    Across the layers C11 = 1/<1/(lambda + 2 G)> in closed form, for any contrast.
    """
    import torch

    from physics import IsotropicElastic, effective_stiffness

    soft = IsotropicElastic(youngs_modulus_gpa=1.0, poisson_ratio=0.3)
    stiff = IsotropicElastic(youngs_modulus_gpa=10.0, poisson_ratio=0.2)
    layers = torch.zeros(1, 32, 32, dtype=torch.uint8)
    layers[:, 8:] = 1
    solved = effective_stiffness(layers, [soft, stiff], tolerance=1e-10)
    exact = 1 / (0.25 / (soft.lame + 2 * soft.shear) + 0.75 / (stiff.lame + 2 * stiff.shear))
    return abs(float(solved.value[0, 0, 0]) / exact - 1)


def _solver() -> Finding:
    started = time.perf_counter()
    error = laminate_error()
    seconds = time.perf_counter() - started
    return error < 1e-8, f"laminate against its closed form: off by {error:.0e}, {seconds:.1f} s"


def _weights(folder: Path) -> Finding:
    try:
        open_verified(folder, kind=json.loads((folder / MANIFEST).read_text())["kind"])
    except (MicrostructureError, OSError, ValueError, KeyError) as error:
        return False, str(error)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return True, f"{size / 1e6:.1f} MB, hashes match"


def _python() -> Finding:
    return True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _package(name: str) -> Finding:
    try:
        return True, version(name)
    except PackageNotFoundError:
        return False, "not installed; install mesoforge again"


def _threads() -> Finding:
    import torch

    return True, f"{torch.get_num_threads()} of {os.cpu_count()} processors"


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return total > 4, f"{total:.1f} GB (the demo needs up to 4)"


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return free > 1, f"{free:.1f} GB free"
