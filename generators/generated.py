"""What a generator returns: a microstructure that knows whether its process was extrapolated."""

from dataclasses import dataclass, replace
from typing import Any

from microstructures import Microstructure


@dataclass(frozen=True, eq=False)
class GeneratedMicrostructure(Microstructure):
    """A microstructure made by a generator.

    Args:
        extrapolated: True when its process lies outside the range that the generator was trained
            on. Such a process does not fit the generator's `space` either, so that no dataset of
            that space takes the sample in by mistake.
    """

    extrapolated: bool = False

    def with_channels(self, **channels: Any) -> "GeneratedMicrostructure":
        """Return a copy with channels added or replaced."""
        return replace(self, channels={**self.channels, **channels})
