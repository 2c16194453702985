"""Landmarks of hands that make a gesture, sampled without an image: anatomy, view, perspective, MediaPipe's errors.

Thousands of hands a second, more varied than rendered ones; `hand1000.hands.train_classifier` learns from both.
"""

import numpy as np

from hand1000.gestures import NO_GESTURE
from hand1000.hands.gesture_poses import POSES, View, sample_angles
from hand1000.hands.kinematics import HandAngles, HandBones, pose_hands, sample_bones

_NO_GESTURE_VIEWS = (
    View(0.5, (0.0, 180.0), (180.0, 55.0), (0.0, 35.0)),
    View(0.3, (0.0, 180.0), (90.0, 35.0), (0.0, 35.0)),
    View(0.2, (0.0, 180.0), (0.0, 35.0), (0.0, 30.0)),
)
"""Hands that make no gesture hang down, lie or, less often, are held up."""

_CHAINS = tuple(slice(1 + 4 * digit, 5 + 4 * digit) for digit in range(5))


def sample_hands(gesture: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sample landmarks as MediaPipe detects them in `count` photographs of hands that make `gesture`.

    Returns:
        Right hands, (count, 21, 3) float32, in palm lengths: x to the right, y down and z away from the camera.
    """
    bones = sample_bones(count, rng)
    angles, rotations = sample_pose(gesture, bones, rng)
    joints = pose_hands(bones, angles) @ rotations.transpose(0, 2, 1)
    return add_detection_errors(project(joints, rng), rotations, rng)


def sample_pose(gesture: str, bones: HandBones, rng: np.random.Generator) -> tuple[HandAngles, np.ndarray]:
    """Sample joint angles of hands that make `gesture`, and the rotations (N, 3, 3) that turn them to a camera."""
    angles = sample_angles(gesture, bones, rng)
    views = _NO_GESTURE_VIEWS if gesture == NO_GESTURE else POSES[gesture].views
    return angles, _sample_rotations(pose_hands(bones, angles), views, rng)


def _sample_rotations(joints: np.ndarray, views: tuple[View, ...], rng: np.random.Generator) -> np.ndarray:
    count = len(joints)
    shares = np.array([view.share for view in views])
    chosen = rng.choice(len(views), count, p=shares / shares.sum())
    angles = np.array([(view.facing, view.tilt, view.pitch) for view in views], float)[chosen]
    noise = np.clip(rng.normal(size=(count, 3)), -2.2, 2.2)
    noise[:, 0] = np.where(angles[:, 0, 1] > 90.0, rng.uniform(-1.0, 1.0, count), noise[:, 0])
    facing, tilt, pitch = (angles[..., 0] + angles[..., 1] * noise).T
    thumb = joints[:, 4] - joints[:, 2]
    roll = np.degrees(np.arctan2(thumb[:, 0], thumb[:, 1]))
    align = np.where([views[view].up == "thumb" for view in chosen], roll, 0.0)
    return _rotate(2, tilt) @ _rotate(0, pitch) @ _rotate(1, facing) @ _rotate(2, align)


def _rotate(axis: int, degrees: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) about the axis x (0), y (1) or z (2)."""
    turn = np.tile(np.eye(3), (len(degrees), 1, 1))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:, first, first] = turn[:, second, second] = cosine
    turn[:, second, first], turn[:, first, second] = sine, -sine
    return turn


def project(joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Project joints (N, 21, 3), y upwards, as a camera at 4 to 40 palm lengths sees them near or far from its axis."""
    count = len(joints)
    distance = np.exp(rng.uniform(np.log(4.0), np.log(40.0), count))[:, None]
    aside = distance * np.clip(rng.normal(0.0, 0.16, (count, 2)), -0.4, 0.4)
    points = joints - joints[:, 9:10]
    scale = distance / (distance - points[..., 2])
    x, y = ((points[..., axis] + aside[:, axis : axis + 1]) * scale for axis in (0, 1))
    return np.stack([x, -y, -points[..., 2]], axis=2)


def add_detection_errors(points: np.ndarray, rotations: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change projected landmarks (N, 21, 3) as MediaPipe errs; float32.

    It compresses the depth, which it only guesses; it places what it does not see where it is most often; its errors
    are correlated along a finger; and it takes some hands for hands of the other side, above all from their edge.
    """
    count = len(points)
    points = points.copy()
    depth = points[..., 2] - points[:, :1, 2]
    points[..., 2] = depth * rng.uniform(0.35, 1.15, (count, 1))
    size = np.exp(rng.uniform(np.log(0.008), np.log(0.06), (count, 1, 1)))
    along = np.array([0.35, 0.6, 0.9, 1.25])[:, None]
    for chain in _CHAINS:
        points[:, chain] += size * 1.2 * along * rng.normal(size=(count, 1, 3)) * [1.0, 1.0, 2.0]
        # A hidden finger is guessed: its outer joints are pulled towards the knuckle or away from it.
        wrong = (rng.random(count) < 0.05)[:, None, None]
        pull = rng.uniform(0.75, 1.2, (count, 1, 1))
        knuckle = points[:, chain][:, :1]
        points[:, chain] = np.where(wrong, knuckle + (points[:, chain] - knuckle) * pull, points[:, chain])
    points += size * rng.normal(size=points.shape) * [0.6, 0.6, 1.6]
    points *= rng.normal(1.0, [0.04, 0.04, 0.15], (count, 1, 3))
    palm_to_camera = np.abs(rotations[:, 2, 2])
    mirrored = rng.random(count) < 0.015 + 0.15 * (1.0 - palm_to_camera) ** 2
    points[mirrored, :, 0] *= -1.0
    return points.astype(np.float32)
