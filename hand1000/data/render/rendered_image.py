"""One rendered image with its annotations; a random generator decides the scene."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hand1000.data.render.face import CHEST, LIPS, face_mesh
from hand1000.data.render.hands import sample_hands
from hand1000.data.render.mesh import Mesh, hand_mesh, sleeve_mesh
from hand1000.data.render.people import BOTH, LIGHTS, WALLS, Attributes, Person, describe, shade
from hand1000.data.render.poses import PosedHand
from hand1000.data.render.scene import Camera, Lighting, Surface, render, to_linear
from hand1000.gestures import NO_GESTURE, TWO_HANDED

SMALL_SHARE = 0.15
"""Share of images in which the hand is small or far from the middle."""

_FACE_SHARE = 0.08
_BODY_SHARE = 0.6
"""Share of the images of two-handed gestures with the body behind the hands."""

_MARGIN = 0.02

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class RenderedImage:
    """A rendered image of H hands, 1 or 2, and its annotations, relative to the image, from its upper left corner.

    Attributes:
        pixels: (size, size, 3) uint8.
        hand_landmarks: (H, 21, 2); some may be outside 0 to 1.
        hand_boxes: x, y, width and height of each hand, within 0 to 1.
        words: Words that describe the image.
        caption: Sentence with these words.
    """

    pixels: np.ndarray
    hand_landmarks: np.ndarray
    hand_boxes: tuple[Box, ...]
    words: Attributes
    caption: str

    @property
    def landmarks(self) -> np.ndarray:
        """The landmarks of the first hand, (21, 2)."""
        return self.hand_landmarks[0]

    @property
    def box(self) -> Box:
        """The box around all hands."""
        if len(self.hand_boxes) == 1:
            return self.hand_boxes[0]
        left, top = (min(box[axis] for box in self.hand_boxes) for axis in (0, 1))
        right, bottom = (max(box[axis] + box[axis + 2] for box in self.hand_boxes) for axis in (0, 1))
        return left, top, right - left, bottom - top


def _placed(mesh: Mesh, posed: PosedHand, move: np.ndarray) -> Mesh:
    """Bring `mesh` from a right hand's frame into the image's and move it by `move`."""
    faces = mesh.faces[:, ::-1] if posed.mirrored else mesh.faces
    vertices, normals = posed.place(mesh.vertices, move), posed.to_image(mesh.normals)
    return replace(mesh, vertices=vertices, normals=normals, faces=faces)


def _frame(hands: np.ndarray, gesture: str, rng: np.random.Generator) -> tuple[Camera, np.ndarray]:
    """Return a camera and the shift of hands of vertices (n, 3) with which they fill a natural part of the image."""
    move = -0.5 * (hands.min(0) + hands.max(0))
    distance = rng.uniform(6.5, 11.0)
    centered = hands + move
    flat = centered[:, :2] * (distance / (distance - centered[:, 2:3]))
    width, height = flat.max(0) - flat.min(0)
    if rng.random() < SMALL_SHARE:
        part, wander, up = rng.uniform(0.38, 0.58), 0.22, 0.03
    else:
        part, wander, up = rng.uniform(0.60, 0.84), 0.06, 0.03
    if gesture == "mute":
        # Room for the face above the hand.
        part, wander, up = 0.8 * part, 0.5 * wander, -0.14
    elif gesture in TWO_HANDED:
        # Each of two hands is smaller than one alone.
        part, wander = 1.1 * part, 0.5 * wander
    # The lower bound keeps a fist smaller than an open hand at the same distance.
    half_height = 0.5 * max(height, width, 1.45) / part
    room = np.maximum(1.0 - 2.0 * _MARGIN - np.array([width, height]) / (2.0 * half_height), 0.0) / 2.0
    aside = rng.normal(0.0, wander, 2) + [0.0, up]
    aside = np.clip(aside, -room, room) * 2.0 * half_height
    return Camera(distance, half_height), move + [aside[0], aside[1], 0.0]


def _lighting(word: str, rng: np.random.Generator) -> Lighting:
    aside, up = np.radians(rng.uniform(-55.0, 55.0)), np.radians(rng.uniform(8.0, 60.0))
    direction = np.array([np.sin(aside) * np.cos(up), np.sin(up), np.cos(aside) * np.cos(up)])
    exposure, tint = LIGHTS[word]
    return Lighting(direction, rng.uniform(0.5, 0.72), exposure * rng.uniform(0.93, 1.07), np.array(tint))


def _face(person: Person, lips: np.ndarray, rng: np.random.Generator, chest: bool = False) -> Surface:
    skin = to_linear(np.array(person.skin_color))
    hair = to_linear(np.array([(0.08, 0.06, 0.05), (0.25, 0.15, 0.08), (0.62, 0.45, 0.22)][int(rng.integers(3))]))
    mesh = face_mesh(skin, hair, to_linear(np.array(person.sleeve_color)), chest)
    return Surface(replace(mesh, vertices=(mesh.vertices - LIPS + lips).astype(np.float32)), np.ones(3), 0.55, 0.3)


def make_image(gesture: str, person: Person, rng: np.random.Generator, *, size: int, samples: int) -> RenderedImage:
    """Render `person` making `gesture`, or an arbitrary pose for `no_gesture`; see `render_pose`."""
    return render_pose(sample_hands(gesture, person.shape, rng), gesture, person, rng, size=size, samples=samples)


def render_pose(
    hands: Sequence[PosedHand], gesture: str, person: Person, rng: np.random.Generator, *, size: int, samples: int
) -> RenderedImage:
    """Render the posed hands of `person`, one or two, in a scene sampled from `rng`, with `samples` paths per pixel."""
    wall_word, light_word = str(rng.choice(list(WALLS))), str(rng.choice(list(LIGHTS)))
    wall = to_linear(np.array(shade(WALLS[wall_word], rng, 0.05)))
    light = _lighting(light_word, rng)
    side = BOTH if len(hands) > 1 else "left" if hands[0].mirrored else "right"
    words = Attributes(side, person.skin, person.sleeve, wall_word, light_word)
    caption = describe(words, rng)

    skin_color = to_linear(np.array(person.skin_color))
    # The darker the skin, the paler the palm looks beside it.
    pale_palm = 0.08 + 0.9 * max(0.0, 0.5 - float(skin_color.mean()))
    # About one voxel per pixel, since finer detail is invisible.
    voxel = float(np.clip(2.5 / size, 0.016, 0.039))
    meshes = [hand_mesh(person.shape, hand.skeleton, voxel, pale_palm) for hand in hands]
    # Framing and boxes follow the hands without their forearms, as annotators draw them.
    parts = [mesh.vertices @ hand.skeleton.forearm < 0.06 for hand, mesh in zip(hands, meshes, strict=True)]
    outlines = [
        _placed(mesh, hand, np.zeros(3)).vertices[part] for hand, mesh, part in zip(hands, meshes, parts, strict=True)
    ]
    camera, move = _frame(np.concatenate(outlines), gesture, rng)
    surfaces, boxes = [], []
    for hand, mesh, part in zip(hands, meshes, parts, strict=True):
        skin = _placed(mesh, hand, move)
        sleeve = sleeve_mesh(hand.skeleton, person.sleeve_start, person.sleeve_width, rng.uniform(0.0, 6.0))
        surfaces.append(Surface(skin, skin_color, 0.5, 0.35))
        surfaces.append(Surface(_placed(sleeve, hand, move), to_linear(np.array(person.sleeve_color)), 1.0, 0.0))
        boxes.append(_box_around(camera.project(skin.vertices[part])))
    joints = [hand.place(hand.skeleton.joints, move) for hand in hands]
    if gesture == "mute":
        # The finger is in front of the lips, with its tip at the nose.
        surfaces.append(_face(person, joints[0][7] + [*rng.normal(0.0, 0.05, 2), -0.14], rng))
    elif gesture == NO_GESTURE and rng.random() < _FACE_SHARE:
        surfaces.append(_face(person, joints[0][9] + [*rng.normal(0.0, 0.6, 2), -rng.uniform(0.8, 1.6)], rng))
    elif gesture in TWO_HANDED and rng.random() < _BODY_SHARE:
        # The hands are in front of the chest.
        placed = np.concatenate(outlines) + move
        middle = np.array([*(0.5 * (placed.min(0) + placed.max(0)))[:2], placed[:, 2].min()])
        away = [*rng.normal(0.0, 0.2, 2), -rng.uniform(0.3, 0.7)]
        surfaces.append(_face(person, middle + away + LIPS - CHEST, rng, chest=True))

    pixels = render(surfaces, light, camera, wall, size=size, samples=samples, seed=int(rng.integers(2**31)))
    landmarks = np.stack([camera.project(points) for points in joints])
    return RenderedImage(pixels, landmarks, tuple(boxes), words, caption)


def _box_around(outline: np.ndarray) -> Box:
    """Return the box of a hand whose vertices are at (n, 2) of the image."""
    low = np.clip(outline.min(0) - _MARGIN, 0.0, 1.0)
    high = np.clip(outline.max(0) + _MARGIN, 0.0, 1.0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])
