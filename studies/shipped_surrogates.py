"""Which shipped surrogates a measurement belongs to."""

import hashlib
from collections.abc import Sequence

from microstructures.publishing import sha256
from networks.saving import CONFIG, WEIGHTS, resolve_model
from surrogates.saved_nets import SHIPPED


def weights_key(names: Sequence[str]) -> str:
    """Return a short hash of shipped nets without cards: stages of other nets are other stages."""
    folders = [resolve_model(name, SHIPPED) for name in names]
    digests = [sha256(folder / file) for folder in folders for file in (CONFIG, WEIGHTS)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:8]
