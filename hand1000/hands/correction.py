"""The proper hand that malformed landmarks stand for: what a fitted MANO mesh is to HandRefiner (Lu et al., 2023).

MediaPipe follows what is drawn: a finger half as long as it should be has landmarks half as far apart. A depth map of
those would have the same finger painted again.
"""

import numpy as np

from hand1000.hands.depth import palm_length

_BONES = np.array([[0.39, 0.32, 0.27], [0.44, 0.29, 0.23], [0.47, 0.33, 0.25], [0.45, 0.30, 0.23], [0.36, 0.23, 0.19]])
"""Of the thumb and the four fingers, from the palm outwards, in palm lengths: MediaPipe's medians."""

_LONGEST = 1.15
_SHORTEST_STRAIGHT, _SHORTEST_BENT = 0.85, 0.5
_STRAIGHT, _BENT = 0.95, 0.7
"""A digit's length against the usual one. MediaPipe flattens a bent one, which so looks shorter than it is; how bent it
is is told by the distance of its ends against its length."""

_SWINGS = np.array([-6.0, -1.0, 3.0, 9.0])
"""Degrees, towards the pinky's side, of index to pinky against the line from the wrist to its knuckle: usual ones."""
_MOST_SWING, _MOST_CROSSING = 35.0, 15.0
"""Beyond which, from that line or over the next finger, the hand's fingers are set to the usual ones."""

_MOST_TWIST = 15.0
"""Degrees by which a finger's outer bones may leave the plane that its first bone bends in."""


def correct_hand(landmarks: np.ndarray) -> np.ndarray:
    """The landmarks, (21, 3), with fingers of usual lengths that bend as fingers do; a proper hand's hardly change.

    A digit that is too short or too long for how it is bent gets the usual lengths of its bones along their own
    directions. Where a finger is spread too far or crosses the next one, all that are not bent over are spread as
    usual. Each finger bends in one plane.
    """
    points = landmarks.astype(np.float64)
    normal = _unit(np.cross(points[5] - points[0], points[17] - points[0]))
    palm = palm_length(points)
    digits = [np.diff(points[1 + 4 * digit : 5 + 4 * digit], axis=0) for digit in range(5)]
    rays = [points[5 + 4 * finger] - points[0] for finger in range(4)]
    swings = np.array([_swing(bones, ray, normal) for bones, ray in zip(digits[1:], rays, strict=True)])
    if (np.abs(swings) > _MOST_SWING).any() or (swings[:-1] - swings[1:] > _MOST_CROSSING).any():
        turns = np.where(np.isnan(swings), 0.0, _SWINGS - swings)
        digits[1:] = [_turned(bones, normal, turn) for bones, turn in zip(digits[1:], turns, strict=True)]
    digits[1:] = [_in_one_plane(bones, normal) for bones in digits[1:]]
    for digit, (bones, usual) in enumerate(zip(digits, _BONES * palm, strict=True)):
        lengths = np.maximum(np.linalg.norm(bones, axis=1, keepdims=True), 1e-9)
        straight = np.linalg.norm(bones.sum(axis=0)) / lengths.sum()
        shortest = np.interp(straight, [_BENT, _STRAIGHT], [_SHORTEST_BENT, _SHORTEST_STRAIGHT])
        if not shortest <= lengths.sum() / max(usual.sum(), 1e-9) <= _LONGEST:
            bones = bones / lengths * usual[:, None]
        points[2 + 4 * digit : 5 + 4 * digit] = points[1 + 4 * digit] + np.cumsum(bones, axis=0)
    return points.astype(np.float32)


def _swing(bones: np.ndarray, ray: np.ndarray, normal: np.ndarray) -> float:
    """Degrees by which a finger's first bone leaves the ray to its knuckle; NaN of one that is bent over."""
    swing = np.degrees(np.arctan2(bones[0] @ _unit(np.cross(normal, ray)), bones[0] @ _unit(ray)))
    return float("nan") if abs(swing) > 90 else float(swing)


def _turned(vectors: np.ndarray, axis: np.ndarray, degrees: float) -> np.ndarray:
    """Vectors (N, 3) turned about a unit axis (Rodrigues' formula)."""
    angle = np.radians(degrees)
    along = np.outer(vectors @ axis, axis)
    return along + (vectors - along) * np.cos(angle) + np.cross(axis, vectors) * np.sin(angle)


def _in_one_plane(bones: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The bones (3, 3) of a finger, the outer two turned until they lie near the plane that the first one bends in."""
    aside = _unit(np.cross(normal, bones[0]))
    flat = bones.copy()
    for bone in flat[1:]:
        length = float(np.linalg.norm(bone))
        within = bone - (bone @ aside) * aside
        most = float(np.sin(np.radians(_MOST_TWIST))) * length
        sideways = max(-most, min(most, float(bone @ aside)))
        bone[:] = _unit(within) * np.sqrt(max(length**2 - sideways**2, 0.0)) + sideways * aside
    return flat


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
