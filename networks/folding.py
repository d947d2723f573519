"""Space to depth: blocks of voxels become channels, so that a net works on a coarser grid."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

FOLD = 2  # edge of a block in voxels
AXES = "xyz"


def fold(x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch folded *half"]:
    """Move blocks of FOLD^dim voxels into channels; every side must be a multiple of FOLD."""
    axes = AXES[: x.ndim - 2]
    split, sides, blocks = _names(axes)
    sizes = {f"{a}f": FOLD for a in axes}
    return rearrange(x, f"b c {split} -> b (c {blocks}) {sides}", **sizes)


def unfold(
    x: Float[Tensor, "batch folded *half"], dim: int
) -> Float[Tensor, "batch channel *space"]:
    """Undo `fold` in `dim` axes of space."""
    split, sides, blocks = _names(AXES[:dim])
    sizes = {f"{a}f": FOLD for a in AXES[:dim]}
    return rearrange(x, f"b (c {blocks}) {sides} -> b c {split}", **sizes)


def _names(axes: str) -> tuple[str, str, str]:
    split = " ".join(f"({a} {a}f)" for a in axes)
    return split, " ".join(axes), " ".join(f"{a}f" for a in axes)
