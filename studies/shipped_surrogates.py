"""Which shipped surrogates a measurement belongs to."""

import hashlib
from collections.abc import Sequence

from microstructures.publishing import sha256
from networks.saving import WEIGHTS, resolve_model
from surrogates.saved_nets import SHIPPED


def weights_key(names: Sequence[str]) -> str:
    """Return a short hash of shipped nets: stages of other weights are other stages."""
    digests = [sha256(resolve_model(name, SHIPPED) / WEIGHTS) for name in names]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:8]
