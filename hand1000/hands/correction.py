"""Correction of a malformed hand's landmarks, as HandRefiner's fitted MANO mesh does it (Lu et al., 2023).

MediaPipe follows the image: the landmarks of a finger of half the usual length are half as far apart, and a depth map
of them would reproduce the malformed finger.
"""

import numpy as np

from hand1000.hands.depth import palm_length

_BONES = np.array([[0.39, 0.32, 0.27], [0.44, 0.29, 0.23], [0.47, 0.33, 0.25], [0.45, 0.30, 0.23], [0.36, 0.23, 0.19]])
"""Usual bone lengths of thumb to pinky, from the palm outwards, in palm lengths: medians of MediaPipe's landmarks."""

_MAX_LENGTH = 1.15
_MIN_LENGTH_STRAIGHT, _MIN_LENGTH_BENT = 0.85, 0.5
"""Bounds of a digit's length relative to the usual one. MediaPipe flattens a bent digit, which so looks shorter."""

_STRAIGHT, _BENT = 0.95, 0.7
"""Straightness, the distance of a digit's ends over its length, from which on it counts as straight, or as bent."""

_USUAL_SPREAD = np.array([-6.0, -1.0, 3.0, 9.0])
"""Usual angles of index to pinky in degrees, towards the pinky, from the line between wrist and knuckle."""

_MAX_SPREAD, _MAX_CROSSING = 35.0, 15.0
"""Angles in degrees, from that line and over the next finger, beyond which all fingers are spread as usual."""

_MAX_TWIST = 15.0
"""Degrees by which a finger's outer bones may leave the plane in which its first bone bends."""


def correct_hand(landmarks: np.ndarray) -> np.ndarray:
    """Correct the lengths, the spread and the bending of the fingers; a normal hand hardly changes.

    A digit that is too short or too long for how it is bent gets the usual lengths of its bones, along their own
    directions. If a finger is spread too far or crosses the next one, all fingers that are not bent over are spread as
    usual. Each finger bends in one plane. The landmarks are (21, 3), as in `hand1000.hands.detector.Hand`.
    """
    points = landmarks.astype(np.float64)
    normal = _unit(np.cross(points[5] - points[0], points[17] - points[0]))
    palm = palm_length(points)
    digits = [np.diff(points[1 + 4 * digit : 5 + 4 * digit], axis=0) for digit in range(5)]
    rays = [points[5 + 4 * finger] - points[0] for finger in range(4)]
    spread = np.array([_spread_angle(bones, ray, normal) for bones, ray in zip(digits[1:], rays, strict=True)])
    if (np.abs(spread) > _MAX_SPREAD).any() or (spread[:-1] - spread[1:] > _MAX_CROSSING).any():
        angles = np.where(np.isnan(spread), 0.0, _USUAL_SPREAD - spread)
        digits[1:] = [_rotate(bones, normal, angle) for bones, angle in zip(digits[1:], angles, strict=True)]
    digits[1:] = [_flatten(bones, normal) for bones in digits[1:]]
    for digit, (bones, usual) in enumerate(zip(digits, _BONES * palm, strict=True)):
        lengths = np.maximum(np.linalg.norm(bones, axis=1, keepdims=True), 1e-9)
        straightness = np.linalg.norm(bones.sum(axis=0)) / lengths.sum()
        min_length = np.interp(straightness, [_BENT, _STRAIGHT], [_MIN_LENGTH_BENT, _MIN_LENGTH_STRAIGHT])
        if not min_length <= lengths.sum() / max(usual.sum(), 1e-9) <= _MAX_LENGTH:
            bones = bones / lengths * usual[:, None]
        points[2 + 4 * digit : 5 + 4 * digit] = points[1 + 4 * digit] + np.cumsum(bones, axis=0)
    return points.astype(np.float32)


def _spread_angle(bones: np.ndarray, ray: np.ndarray, normal: np.ndarray) -> float:
    """Degrees between a finger's first bone and the ray to its knuckle; NaN for a finger that is bent over."""
    angle = np.degrees(np.arctan2(bones[0] @ _unit(np.cross(normal, ray)), bones[0] @ _unit(ray)))
    return float("nan") if abs(angle) > 90 else float(angle)


def _rotate(vectors: np.ndarray, axis: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate vectors (N, 3) about a unit axis (Rodrigues' formula)."""
    angle = np.radians(degrees)
    along = np.outer(vectors @ axis, axis)
    return along + (vectors - along) * np.cos(angle) + np.cross(axis, vectors) * np.sin(angle)


def _flatten(bones: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Turn the outer two bones of a finger (3, 3) until they are near the plane in which the first one bends."""
    plane_normal = _unit(np.cross(normal, bones[0]))
    flat = bones.copy()
    for bone in flat[1:]:
        length = float(np.linalg.norm(bone))
        within = bone - (bone @ plane_normal) * plane_normal
        limit = float(np.sin(np.radians(_MAX_TWIST))) * length
        sideways = max(-limit, min(limit, float(bone @ plane_normal)))
        bone[:] = _unit(within) * np.sqrt(max(length**2 - sideways**2, 0.0)) + sideways * plane_normal
    return flat


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
