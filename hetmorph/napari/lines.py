"""A displacement as line segments, as napari has its vectors: `[M, 2, N]`, start and direction, voxels (…, Y, X)."""

from __future__ import annotations

import numpy as np

from hetmorph.io.geometry import grid_points

LINES = 24  # along the longer side of a slice


def step_of(shape: tuple[int, ...]) -> int:
    """Voxels between the lines of a grid.

    Args:
        shape: `(*S)` of the image.
    """
    return max(1, round(max(shape[:2]) / LINES))


def arrows(displacement: np.ndarray, step: int | None = None) -> np.ndarray:
    """From every `step`-th voxel of each slice to where it is taken from.

    Args:
        displacement: `[*S, N]`, voxels.
        step: voxels; None takes `step_of`.
    """
    shape = displacement.shape[:-1]
    every = (slice(None, None, step or step_of(shape)),) * 2
    starts, vectors = grid_points(shape)[every], displacement[every]
    return np.stack([_turned(starts), _turned(vectors)], 1)


def deformed_grid(displacement: np.ndarray, step: int | None = None) -> np.ndarray:
    """The lines of a regular grid of the fixed image, drawn where they are taken from, x + u(x).

    In a volume they are those of each slice along its last axis, looked at along it.

    Args:
        displacement: `[*S, N]`, voxels.
        step: voxels between lines; None takes `step_of`.
    """
    shape = displacement.shape[:-1]
    step = step or step_of(shape)
    places = grid_points(shape) + displacement
    places[..., 2:] = grid_points(shape)[..., 2:]  # a vector is shown in the slice where it starts
    pace, parts = max(1, step // 2), []
    for along in (0, 1):
        nodes = np.unique([*range(0, shape[along], pace), shape[along] - 1])
        lines = np.moveaxis(places, (along, 1 - along), (0, 1))[nodes, ::step]
        parts.append(np.stack([_turned(lines[:-1]), _turned(np.diff(lines, axis=0))], 1))
    return np.concatenate(parts)


def _turned(vectors: np.ndarray) -> np.ndarray:
    """`[M, N]` with the axes of a layer."""
    return vectors.reshape(-1, vectors.shape[-1])[:, ::-1].astype(np.float32)
