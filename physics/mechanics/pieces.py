"""Coarse spaces of pieces: runs of strongly coupled unknowns that can move as rigid lines.

A block of voxels may hold parts of several bodies, and one body may slide along itself where the
scheme's shear points lie in a soft phase. So each component of the unknown in each block is cut
into pieces that hang together by strong couplings, and each piece carries its mean and its slopes
along the other axes: exact for rigid motions, and free to jump wherever the material lets it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components

STRENGTH = 0.03
"""Coupling |a_ij| / sqrt(a_ii a_jj) from which two unknowns move together."""

NOTHING = 1e-10
"""Share of its voxels' stiffness below which a coarse unknown is taken to carry nothing."""


@dataclass(frozen=True)
class Unknowns:
    """What a matrix's unknowns are: value (mode 0) or slopes of nodes in space.

    `kind` numbers the (sample, component) of a node: only nodes of one kind share a piece.
    """

    node: Int[np.ndarray, " unknown"]
    mode: Int[np.ndarray, " unknown"]
    kind: Int[np.ndarray, " nodes"]
    position: Float[np.ndarray, "nodes dim"]
    components: int

    @property
    def sample(self) -> Int[np.ndarray, " unknown"]:
        """The sample of each unknown."""
        return self.kind[self.node] // self.components

    @property
    def slopes(self) -> Int[np.ndarray, "nodes slope"]:
        """The axes along which a node's unknown may have a slope: not its own component's."""
        dim = self.position.shape[1]
        if self.components == 1:
            table = np.arange(dim)[None]
        else:
            table = np.array([[a for a in range(dim) if a != i] for i in range(dim)])
        return table[self.kind % self.components]


def voxel_unknowns(batch: int, components: int, shape: tuple[int, ...]) -> Unknowns:
    """Return the description of a field `(batch, components, *shape)`, flattened."""
    size = int(np.prod(shape))
    grids = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij")
    position = np.stack([np.tile(grid.ravel(), batch * components) for grid in grids], 1)
    count = batch * components * size
    return Unknowns(
        np.arange(count, dtype=np.int32),
        np.zeros(count, dtype=np.int8),
        np.repeat(np.arange(batch * components, dtype=np.int32), size),
        position,
        components,
    )


def coarsened(
    matrix: sparse.csr_array, unknowns: Unknowns, blocks: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[sparse.csr_array, sparse.csr_array, Unknowns]:
    """Return prolongation, Galerkin matrix and unknowns of the pieces in a grid of blocks."""
    diagonal = matrix.diagonal()
    piece = _pieces(matrix, diagonal, unknowns, blocks, shape)
    coarse, prolongation = _modes(unknowns, piece)
    product = (prolongation.T.tocsr() @ (matrix @ prolongation)).tocsr()
    weight = prolongation.multiply(prolongation).T @ diagonal
    keep = np.flatnonzero(product.diagonal() > NOTHING * weight)
    coarse = Unknowns(
        coarse.node[keep], coarse.mode[keep], coarse.kind, coarse.position, coarse.components
    )
    return prolongation[:, keep].tocsr(), product[keep][:, keep].tocsr(), coarse


def _pieces(
    matrix: sparse.csr_array,
    diagonal: np.ndarray,
    unknowns: Unknowns,
    blocks: tuple[int, ...],
    shape: tuple[int, ...],
) -> Int[np.ndarray, " nodes"]:
    """Return the piece of each node: the connected parts of strong couplings inside blocks."""
    node, kind = unknowns.node, unknowns.kind
    block = kind.astype(np.int64)
    for axis, (count, n) in enumerate(zip(blocks, shape, strict=True)):
        cell = ((unknowns.position[:, axis] + 0.5) * (count / n)).astype(np.int64)
        block = block * count + np.minimum(cell, count - 1)
    size = np.sqrt(np.maximum(diagonal, 0.0)).astype(np.float32)
    row = np.repeat(np.arange(len(node), dtype=np.int32), np.diff(matrix.indptr))
    column = matrix.indices
    strong = np.abs(matrix.data) > STRENGTH * size[row] * size[column]
    first, second = node[row[strong]], node[column[strong]]
    inside = block[first] == block[second]
    first, second = first[inside], second[inside]
    graph = sparse.coo_array((np.ones(len(first), np.int8), (first, second)), (len(kind),) * 2)
    return connected_components(graph.tocsr(), directed=False)[1]


def _modes(
    unknowns: Unknowns, piece: Int[np.ndarray, " nodes"]
) -> tuple[Unknowns, sparse.csr_array]:
    """Return the pieces' unknowns and their shapes on the finer ones, empty shapes left out."""
    node, mode = unknowns.node, unknowns.mode
    count = int(piece.max()) + 1
    members = np.bincount(piece, minlength=count)
    position = np.stack(
        [np.bincount(piece, column, count) / members for column in unknowns.position.T], 1
    )
    kind = np.zeros(count, dtype=np.int32)
    kind[piece] = unknowns.kind
    slopes = unknowns.slopes
    per_piece = slopes.shape[1] + 1
    parent = piece[node] * per_piece
    fine = np.arange(len(node), dtype=np.int32)
    values = mode == 0
    rows, columns = [fine], [parent + mode]
    entries = [np.ones(len(node))]
    for k in range(per_piece - 1):
        axis = slopes[node[values], k]
        at = node[values]
        rows.append(fine[values])
        columns.append(parent[values] + k + 1)
        entries.append(unknowns.position[at, axis] - position[piece[at], axis])
    size = (len(node), count * per_piece)
    shapes = sparse.coo_array(
        (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))), shape=size
    ).tocsr()
    keep = np.flatnonzero(shapes.multiply(shapes).sum(0) > 1e-6)
    coarse = Unknowns(
        (keep // per_piece).astype(np.int32),
        (keep % per_piece).astype(np.int8),
        kind,
        position,
        unknowns.components,
    )
    return coarse, shapes[:, keep].tocsr()
