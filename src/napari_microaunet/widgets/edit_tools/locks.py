"""Vertices of a Shapes layer that stay where they are, whatever is done to the shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Shapes
    from numpy.typing import NDArray

    Ring = NDArray[np.float64]


class VertexLocks:
    """The locked vertices of the shapes in a layer.

    napari tells of a drag only when it has ended, and offers no hook to refuse
    it. So what has happened to locked vertices is undone afterwards.

    Parameters
    ----------
    layer : Shapes
        Its shapes may be changed in any way meanwhile. A locked vertex that is
        removed is gone.
    """

    def __init__(self, layer: Shapes) -> None:
        self._layer = layer
        self._rings: list[Ring] = [np.array(ring) for ring in layer.data]
        self._locked = [np.zeros(len(ring), bool) for ring in self._rings]

    def rings(self) -> list[Ring]:
        """Return the shapes of the layer with all locked vertices in their places.

        To be asked after each vertex that was added or removed.

        Returns
        -------
        list of float arrays, each of shape (n, dimensions of the layer)
        """
        rings = [np.array(ring) for ring in self._layer.data]
        places = self.places()
        locked = []
        for number, ring in enumerate(rings):
            before = self._rings[number] if len(rings) == len(self._rings) else ring[:0]
            if len(before) == len(ring):
                held = self._locked[number]
                ring[held] = before[held]
            else:
                held = (ring[:, None] == places).all(axis=2).any(axis=1)
            locked.append(held)
        self._rings, self._locked = rings, locked
        return rings

    def places(self) -> Ring:
        """Return where the locked vertices are, shape (count, dimensions of the layer)."""
        held = [ring[locked] for ring, locked in zip(self._rings, self._locked, strict=True)]
        return np.concatenate([*held, np.empty((0, self._layer.ndim))])

    def toggle(self, point: tuple[float, float], reach: float) -> bool | None:
        """Lock the vertex at a place, or unlock it.

        Parameters
        ----------
        point : (float, float)
            Row and column.
        reach : float
            How far the vertex may be from it, in pixels.

        Returns
        -------
        bool or None
            Whether it is locked now; None if there is none.
        """
        away = [np.linalg.norm(ring[:, -2:] - point, axis=1) for ring in self.rings()]
        nearest = min((float(far.min()) for far in away), default=np.inf)
        if nearest > reach:
            return None
        number = next(n for n, far in enumerate(away) if far.min() == nearest)
        # A ring that was drawn by hand may end in its first vertex.
        here = (self._rings[number] == self._rings[number][away[number].argmin()]).all(axis=1)
        self._locked[number] = self._locked[number] ^ here
        return bool(self._locked[number][here].any())

    def put_back(self) -> bool:
        """Put locked vertices that were moved back in the layer; tell whether there were any."""
        rings = self.rings()
        if all(np.array_equal(a, b) for a, b in zip(rings, self._layer.data, strict=True)):
            return False
        selected = set(self._layer.selected_data)
        self._layer.data = rings
        self._layer.selected_data = selected
        return True
