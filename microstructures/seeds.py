"""Seeds by index: sample k's seed depends on (dataset seed, k) alone, never on order."""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed from a path of numbers and names (SHA-256 of their text).

    No sharding, resume or order can change a sample whose seed is derived this way.
    """
    text = "/".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(*parts: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a torch generator seeded by `derive_seed(*parts)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
