"""The bones of a hand: proportions, joint angles and forward kinematics.

Everything is in the frame of a right hand whose palm faces the viewer: the wrist is the origin, +y runs along the
straight fingers, +x points to the thumb's side and +z out of the palm. The unit is the palm's length (wrist to the
middle finger's knuckle, about 95 mm). Angles are in degrees.
"""

from dataclasses import dataclass, replace

import numpy as np

FINGERS = ("index", "middle", "ring", "pinky")

# Knuckles (index to pinky); the small z differences are the arch of the palm.
_KNUCKLES = np.array([[0.285, 0.965, 0.0], [0.075, 1.0, -0.02], [-0.135, 0.945, -0.005], [-0.325, 0.845, 0.035]])
_PHALANGES = np.array([[0.44, 0.26, 0.19], [0.49, 0.30, 0.20], [0.45, 0.28, 0.20], [0.35, 0.20, 0.175]])
_THUMB_BASE = np.array([0.20, 0.20, 0.07])
_THUMB_BONES = np.array([0.44, 0.35, 0.25])

# Radii at the four key points of each digit, thumb first.
_RADII = np.array(
    [
        [0.150, 0.128, 0.110, 0.083],
        [0.116, 0.098, 0.085, 0.069],
        [0.118, 0.102, 0.087, 0.071],
        [0.112, 0.096, 0.082, 0.067],
        [0.100, 0.084, 0.072, 0.060],
    ]
)

# Lowest and highest angle of the thumb's four joints: radial, palmar, mcp, ip.
_THUMB_LIMITS = np.array([[-5.0, 72.0], [-5.0, 62.0], [-15.0, 70.0], [-25.0, 85.0]])


@dataclass(frozen=True)
class HandShape:
    """Proportions of one person's hand as factors of the average hand, about 0.85 to 1.15."""

    finger_length: float = 1.0
    finger_width: float = 1.0
    palm_width: float = 1.0
    thumb_length: float = 1.0

    @property
    def radii(self) -> np.ndarray:
        """Radii at the four key points of each digit, thumb first: (5, 4), in palm lengths."""
        return _RADII * self.finger_width

    @property
    def knuckles(self) -> np.ndarray:
        """The knuckles of index to pinky: (4, 3), in palm lengths."""
        return _KNUCKLES * [self.palm_width, 1.0, 1.0]


@dataclass(frozen=True)
class Thumb:
    """Joint angles of the thumb in degrees.

    `radial` swings it in the plane of the palm away from the fingers, `palmar` lifts it out of that plane, `mcp` and
    `ip` bend its two outer joints, and `opposition` turns the plane of that bending (0: across the palm, 90: away
    from it).
    """

    radial: float = 40.0
    palmar: float = 15.0
    mcp: float = 5.0
    ip: float = 0.0
    opposition: float = 25.0

    @property
    def angles(self) -> np.ndarray:
        """The angles of its four joints: radial, palmar, mcp and ip."""
        return np.array([self.radial, self.palmar, self.mcp, self.ip])

    def with_angles(self, angles: np.ndarray) -> "Thumb":
        """Return a thumb whose four joints have these angles."""
        radial, palmar, mcp, ip = map(float, angles)
        return Thumb(radial, palmar, mcp, ip, self.opposition)


@dataclass(frozen=True)
class HandPose:
    """Joint angles of a hand in degrees.

    `flexion` is (4, 3): index to pinky, from the knuckle out; 0 is straight, positive bends to the palm.
    `abduction` is (4,): positive swings towards the thumb's side. `wrist` is (2,): bend to the palm, and to the
    thumb's side.
    """

    flexion: np.ndarray
    abduction: np.ndarray
    thumb: Thumb
    wrist: np.ndarray


@dataclass(frozen=True)
class Skeleton:
    """A posed hand of D digits, 5 unless it is malformed on purpose.

    Attributes:
        joints: (1 + 4 D, 3) key points, in MediaPipe's order.
        backs: (D, 3, 3) unit normals on the back of each phalanx, thumb first.
        forearm: (3,) unit vector from the wrist to the elbow.
    """

    joints: np.ndarray
    backs: np.ndarray
    forearm: np.ndarray


def _about(axis: int, degrees: float) -> np.ndarray:
    """Return the (3, 3) rotation about the axis x (0), y (1) or z (2)."""
    turn, first, second = np.eye(3), (axis + 1) % 3, (axis + 2) % 3
    turn[first, first] = turn[second, second] = np.cos(np.radians(degrees))
    turn[second, first] = np.sin(np.radians(degrees))
    turn[first, second] = -turn[second, first]
    return turn


def rotation(roll: float, yaw: float, pitch: float) -> np.ndarray:
    """Return the (3, 3) rotation by yaw, then pitch, then roll, in degrees; positive roll is counter-clockwise."""
    return _about(2, roll) @ _about(0, pitch) @ _about(1, yaw)


def _finger(shape: HandShape, pose: HandPose, finger: int) -> tuple[np.ndarray, np.ndarray]:
    points, backs = [shape.knuckles[finger]], []
    # Spread fingers close up as they bend, as real ones do: the knuckle's ligaments tighten.
    spread = pose.abduction[finger] * max(0.0, np.cos(np.radians(pose.flexion[finger, 0])))
    turn = _about(2, -spread)
    for length, angle in zip(_PHALANGES[finger] * shape.finger_length, pose.flexion[finger], strict=True):
        turn = turn @ _about(0, angle)
        points.append(points[-1] + turn[:, 1] * length)
        backs.append(-turn[:, 2])
    return np.array(points), np.array(backs)


def _thumb(shape: HandShape, thumb: Thumb) -> tuple[np.ndarray, np.ndarray]:
    radial, palmar, opposition = np.radians([thumb.radial, thumb.palmar, thumb.opposition])
    along = np.array([np.sin(radial) * np.cos(palmar), np.cos(radial) * np.cos(palmar), np.sin(palmar)])
    # The way the thumb bends, made square to the bone; a lifted thumb is turned to face the fingers.
    bend = np.array([-np.cos(opposition), 0.0, np.sin(opposition)])
    bend -= along * (bend @ along)
    bend /= np.linalg.norm(bend)
    points, backs = [_THUMB_BASE * [shape.palm_width, 1.0, 1.0]], []
    for length, angle in zip(_THUMB_BONES * shape.thumb_length, (0.0, thumb.mcp, thumb.ip), strict=True):
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        along, bend = c * along + s * bend, c * bend - s * along
        points.append(points[-1] + along * length)
        backs.append(-bend)
    return np.array(points), np.array(backs)


def forward(shape: HandShape, pose: HandPose) -> Skeleton:
    """Return the key points of `shape` in `pose`, in the frame of a right hand (forward kinematics)."""
    digits = [_thumb(shape, pose.thumb)] + [_finger(shape, pose, finger) for finger in range(4)]
    joints = np.concatenate([np.zeros((1, 3))] + [points for points, _ in digits])
    forearm = _about(2, pose.wrist[1]) @ _about(0, -pose.wrist[0]) @ np.array([0.0, -1.0, 0.0])
    return Skeleton(joints, np.stack([backs for _, backs in digits]), forearm)


def reach(shape: HandShape, pose: HandPose, target: np.ndarray) -> HandPose:
    """Return `pose` with the thumb's tip as near to `target` (3,) as its joints allow (inverse kinematics).

    The angles stay near those of `pose`, which select one of the many solutions.
    """

    def tip(angles: np.ndarray) -> np.ndarray:
        return _thumb(shape, pose.thumb.with_angles(angles))[0][-1]

    prior = pose.thumb.angles
    angles, pull = prior.copy(), 5e-4
    for _ in range(12):
        here = tip(angles)
        slope = np.stack([tip(angles + step) - here for step in np.eye(4)], axis=1)
        normal = slope.T @ slope + pull**2 * np.eye(4)
        change = np.linalg.solve(normal, slope.T @ (target - here) + pull**2 * (prior - angles))
        angles = np.clip(angles + np.clip(change, -15.0, 15.0), *_THUMB_LIMITS.T)
    return replace(pose, thumb=pose.thumb.with_angles(angles))
