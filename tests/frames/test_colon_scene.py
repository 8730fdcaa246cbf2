from __future__ import annotations

import numpy as np
import pytest

from napari_microaunet.frames.colon_scene import Colon, Polyp, grow_polyp
from napari_microaunet.frames.scope import aim


def ball(centre: tuple[float, float, float], radius: float) -> Polyp:
    place = np.array(centre, np.float32)
    return Polyp(
        foot=place,
        centre=place,
        axes=np.eye(3, dtype=np.float32),
        radii=np.full(3, radius, np.float32),
        stalk=0.0,
        lobes=np.zeros((0, 4), np.float32),
        ripple=0.0,
        fillet=0.01,
    )


def axis_at(colon: Colon, z: float) -> np.ndarray:
    x, y = colon.centre(np.float32(z))
    return np.array([x, y, z], np.float32)


def look(colon: Colon, target: np.ndarray, size: int = 101):
    """Labels and depths that a camera on the axis sees, its half view at the corners 1 rad."""
    camera = aim(axis_at(colon, 0.0), target, 0.3, half_view=1.0)
    rays = camera.rays(size, size)
    depth = colon.trace(camera.position, rays)
    points = camera.position[:, None] + (rays * depth).reshape(3, -1)
    return colon.labels(points).reshape(size, size), depth, camera, rays


def test_a_ball_on_the_axis_is_seen_as_the_disc_that_geometry_says():
    colon = Colon(np.random.default_rng(3))
    target = axis_at(colon, 0.9)
    colon.polyps.append(ball(tuple(target), 0.15))
    labels, _, camera, rays = look(colon, target)
    distance = np.linalg.norm(target - camera.position)
    angle = np.arccos(np.clip(np.einsum("i,ihw->hw", camera.axes[2], rays), -1, 1))
    expected = angle < np.arcsin(0.15 / distance)
    assert expected.sum() > 300
    assert (labels == 1)[angle < np.arcsin(0.145 / distance)].all()
    assert not (labels == 1)[angle > np.arcsin(0.155 / distance)].any()


def test_what_is_in_front_hides_what_is_behind():
    colon = Colon(np.random.default_rng(3))
    origin, near = axis_at(colon, 0.0), axis_at(colon, 0.5)
    colon.polyps += [ball(tuple(origin + 1.4 * (near - origin)), 0.08), ball(tuple(near), 0.12)]
    labels, *_ = look(colon, near)
    assert set(np.unique(labels)) == {0, 2}
    colon.polyps[1] = ball(tuple(near + np.array([5, 0, 0], np.float32)), 0.12)
    labels, *_ = look(colon, near)
    assert set(np.unique(labels)) == {0, 1}


@pytest.mark.parametrize("seed", range(6))
def test_rays_end_at_the_first_surface(seed):
    random = np.random.default_rng(seed)
    colon = Colon(random)
    colon.polyps.append(grow_polyp(colon, random, 0.8, 1.0, 0.25))
    _, depth, camera, rays = look(colon, axis_at(colon, 1.0), size=61)
    if colon.distance(camera.position[:, None])[0] < 0.1:
        pytest.skip("the camera sits in the polyp")
    # Walk along every ray in steps far smaller than anything in the scene.
    steps = np.arange(0.02, 4, 0.004, dtype=np.float32)
    first = np.full(depth.shape, np.inf)
    for step in steps[::-1]:
        points = camera.position[:, None] + rays.reshape(3, -1) * step
        hit = colon.distance(points).reshape(depth.shape) < 0
        first[hit] = step
    near = np.isfinite(first)
    assert near.mean() > 0.3
    behind = (depth - first)[near]
    assert behind.max() < 0.004
    # Rays that brush past an edge may end there, a fraction of a pixel beside it.
    assert (behind > -0.03).mean() > 0.99


@pytest.mark.parametrize("seed", range(12))
def test_polyps_grow_from_the_wall_into_the_lumen(seed):
    random = np.random.default_rng(seed)
    colon = Colon(random)
    polyp = grow_polyp(colon, random, 1.0, random.uniform(0, 6), 0.25)
    assert abs(colon.wall(polyp.foot[:, None])[0]) < 0.02
    top = polyp.centre + polyp.axes[2] * polyp.radii[2]
    assert colon.wall(top[:, None])[0] > 0
    assert abs(polyp.distance(top[:, None])[0]) < 0.08
    np.testing.assert_allclose(polyp.axes @ polyp.axes.T, np.eye(3), atol=1e-5)
