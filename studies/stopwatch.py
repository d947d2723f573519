"""CPU seconds of rivals at the same work, taken in turn in one process."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median


def race(rivals: Mapping[str, Callable[[], object]], *, repetitions: int = 3) -> dict[str, float]:
    """Return the median CPU seconds of each rival's work, by name.

    All run once unmeasured, then in turn (A B A B ...), so that a slow minute of the machine
    slows them alike. CPU seconds of all threads: the figure that a shared machine changes least.
    """
    for work in rivals.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repetitions):
        for name, work in rivals.items():
            started = time.process_time()
            work()
            seconds[name].append(time.process_time() - started)
    return {name: median(taken) for name, taken in seconds.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine_description() -> dict[str, str]:
    """Return processor, core count, accelerator, and the versions that the figures depend on."""
    import os

    import torch

    names = [
        line.partition(":")[2].strip()
        for line in _cpuinfo().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "mesoforge": version("mesoforge"),
    }


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
