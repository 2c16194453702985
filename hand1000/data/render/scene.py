"""Path tracing of meshes with Mitsuba 3 and the wall behind them.

Only the meshes are traced. The wall is shaded in closed form and free of noise, because a small autoencoder would spend
its capacity on the noise of a traced one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hand1000.data.render.mesh import Mesh


@dataclass(frozen=True)
class Surface:
    """A mesh in the image's frame with its linear base color (3,), roughness (0 to 1) and specular part (0 to 1)."""

    mesh: Mesh
    color: np.ndarray
    roughness: float
    specular: float


@dataclass(frozen=True)
class Lighting:
    """A large soft lamp and light from all around.

    `direction` (3,) points to the lamp; `lamp` is its share of the light (0 to 1); `exposure` and the linear `tint`
    (3,) scale the whole image.
    """

    direction: np.ndarray
    lamp: float
    exposure: float
    tint: np.ndarray


@dataclass(frozen=True)
class Camera:
    """A camera on the +z axis at `distance` from the origin; the square image is 2 `half_height` high at z = 0."""

    distance: float
    half_height: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the image coordinates of `points` (n, 3): (n, 2), from 0 (left, top) to 1 within the image."""
        scale = self.distance / (self.distance - points[:, 2]) / self.half_height
        return np.stack([0.5 + 0.5 * points[:, 0] * scale, 0.5 - 0.5 * points[:, 1] * scale], axis=1)


def to_linear(color: np.ndarray) -> np.ndarray:
    """Convert sRGB (0 to 1) to linear light."""
    color = np.asarray(color, np.float64)
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def to_srgb(color: np.ndarray) -> np.ndarray:
    """Convert linear light to sRGB (0 to 1), with a soft shoulder instead of clipped highlights."""
    over = np.maximum(color - 0.75, 0.0)
    color = np.clip(np.minimum(color, 0.75) + 0.25 * (1.0 - np.exp(-over / 0.25)), 0.0, 1.0)
    return np.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1.0 / 2.4) - 0.055)


def use_mitsuba(threads: int | None = None) -> Any:
    """Return the `mitsuba` module with the variant used here; `threads` limits its threads."""
    import mitsuba as mi

    if mi.variant() != "scalar_rgb":
        mi.set_variant("scalar_rgb")
        mi.set_log_level(mi.LogLevel.Error)
    if threads is not None:
        import drjit as dr

        dr.set_thread_count(threads)
    return mi


def _shape(mi: Any, surface: Surface) -> Any:
    mesh = surface.mesh
    properties = mi.Properties()
    color = {"type": "mesh_attribute", "name": "vertex_color"}
    if surface.specular > 0.0:
        finish = {"roughness": surface.roughness, "specular": surface.specular}
        bsdf = {"type": "principled", "base_color": color, **finish}
    else:
        bsdf = {"type": "diffuse", "reflectance": color}
    properties["material"] = mi.load_dict({"type": "twosided", "inside": bsdf})
    shape = mi.Mesh("surface", len(mesh.vertices), len(mesh.faces), props=properties, has_vertex_normals=True)
    tint = np.clip(mesh.color * surface.color, 0.0, 0.95).astype(np.float32)
    shape.add_attribute("vertex_color", 3, tint.ravel())
    values = mi.traverse(shape)
    values["vertex_positions"] = np.ascontiguousarray(mesh.vertices, np.float32).ravel()
    values["vertex_normals"] = np.ascontiguousarray(mesh.normals, np.float32).ravel()
    values["faces"] = np.ascontiguousarray(mesh.faces, np.uint32).ravel()
    values.update()
    return shape


def _denoise(radiance: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """Average `radiance` (n, n, 3) over neighboring pixels of the same surface.

    `guide` (n, n, k) has noise-free features of each pixel, scaled so that a difference of 1 is another surface. The
    smoothed radiance of the neighbors is a feature too, which keeps creases.
    """
    reach, size = 3, radiance.shape[0]
    tone = np.sqrt(np.maximum(radiance, 0.0))
    edge = np.pad(tone, ((1, 1), (1, 1), (0, 0)), mode="edge")
    smooth = sum(edge[i : i + size, j : j + size] for i in range(3) for j in range(3)) / 9.0
    guide = np.concatenate([guide, smooth / 0.09], axis=2).astype(np.float32)
    wide = np.pad(np.concatenate([guide, radiance], axis=2), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    wide = wide.astype(np.float32)
    facts = guide.shape[2]
    total, weights = np.zeros_like(radiance), np.zeros((size, size, 1))
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            other = wide[down : down + size, right : right + size]
            apart = (down - reach) ** 2 + (right - reach) ** 2
            change = other[..., :facts] - guide
            square = np.einsum("ijk,ijk->ij", change, change)[..., None]
            weight = np.exp(-0.5 * square - apart / (2.0 * 1.6**2))
            total += weight * other[..., facts:]
            weights += weight
    return total / weights


def _trace(
    surfaces: list[Surface], light: Lighting, camera: Camera, wall: np.ndarray, size: int, samples: int, seed: int
) -> np.ndarray:
    mi = use_mitsuba()
    transform = mi.ScalarTransform4f
    aim = transform().look_at(list(6.0 * light.direction), [0, 0, 0], [0.1, 1.0, 0.2]) @ transform().scale(2.3)
    # The wall tints the ambient light, as in a room.
    around = (1.0 - light.lamp) * (0.75 + 0.25 * wall / max(float(wall.max()), 1e-6))
    scene: dict[str, Any] = {
        "type": "scene",
        "integrator": {
            "type": "aov",
            "aovs": "normal:sh_normal,albedo:albedo,depth:depth",
            "path": {"type": "path", "max_depth": 2, "hide_emitters": True},
        },
        "sensor": {
            "type": "perspective",
            "fov": float(2.0 * np.degrees(np.arctan(camera.half_height / camera.distance))),
            "to_world": transform().look_at([0, 0, camera.distance], [0, 0, 0], [0, 1, 0]),
            "film": {
                "type": "hdrfilm",
                "width": size,
                "height": size,
                "pixel_format": "rgba",
                "rfilter": {"type": "gaussian", "stddev": 0.45},
            },
            "sampler": {"type": "multijitter", "sample_count": samples},
        },
        "around": {"type": "constant", "radiance": {"type": "rgb", "value": around.tolist()}},
        # 5.4 makes the lamp's light on a surface that faces it equal to that of surroundings of radiance 1.
        "lamp": {
            "type": "rectangle",
            "to_world": aim,
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": 5.4 * light.lamp}},
        },
    }
    for number, surface in enumerate(surfaces):
        scene[f"surface_{number}"] = _shape(mi, surface)
    layers = np.array(mi.render(mi.load_dict(scene), seed=seed), dtype=np.float64)
    radiance, coverage, normal, albedo, depth = np.split(layers, [3, 4, 7, 10], axis=2)
    # Divided by the surface's color, the light alone varies slowly enough to be smoothed.
    light_alone = radiance / (albedo + 0.01)
    guide = np.concatenate([normal / 0.2, np.sqrt(np.maximum(albedo, 0.0)) / 0.1, depth / 0.12], axis=2)
    return np.concatenate([_denoise(light_alone, guide) * (albedo + 0.01), coverage], axis=2)


def _wall(color: np.ndarray, light: Lighting, coverage: np.ndarray) -> np.ndarray:
    """Return the wall's linear image: a glow towards the lamp, a vignette and the soft shadow of the hand."""
    from scipy.ndimage import gaussian_filter, shift

    size = coverage.shape[0]
    axis = (np.arange(size) + 0.5) / size * 2.0 - 1.0
    x, y = axis[None, :], -axis[:, None]
    glow = 1.0 + 0.16 * light.lamp * (x * light.direction[0] + y * light.direction[1])
    shade = glow * (1.0 - 0.10 * (x * x + y * y))
    moved = shift(coverage, (0.13 * size * light.direction[1], -0.13 * size * light.direction[0]), order=1)
    shadow = gaussian_filter(moved, 0.07 * size)
    return color * (0.92 * shade * (1.0 - 0.4 * light.lamp * shadow))[..., None]


def render(
    surfaces: list[Surface], light: Lighting, camera: Camera, wall: np.ndarray, *, size: int, samples: int, seed: int
) -> np.ndarray:
    """Render `surfaces` in front of a wall of linear color `wall` (3,): (size, size, 3) uint8 sRGB.

    `samples` are paths per pixel; the same arguments give the same image.
    """
    traced = _trace(surfaces, light, camera, wall, size, samples, seed)
    coverage = np.clip(traced[..., 3:4], 0.0, 1.0)
    linear = traced[..., :3] + (1.0 - coverage) * _wall(wall, light, coverage[..., 0])
    return np.round(to_srgb(linear * light.exposure * light.tint) * 255.0).astype(np.uint8)
