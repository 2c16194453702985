"""One rendered image with its annotations; a random generator decides the scene."""

from dataclasses import dataclass, replace

import numpy as np

from hand1000.data.render.face import LIPS, face_mesh
from hand1000.data.render.mesh import Mesh, hand_mesh, sleeve_mesh
from hand1000.data.render.people import LIGHTS, WALLS, Attributes, Person, describe, shade
from hand1000.data.render.poses import PosedHand, sample_pose
from hand1000.data.render.scene import Camera, Lighting, Surface, render, to_linear
from hand1000.gestures import NO_GESTURE

SMALL_SHARE = 0.15
"""Share of images in which the hand is small or far from the middle."""

_FACE_SHARE = 0.08
_MARGIN = 0.02


@dataclass(frozen=True)
class RenderedImage:
    """A rendered image and its annotations, which are relative to the image, from its upper left corner.

    Attributes:
        pixels: (size, size, 3) uint8.
        landmarks: (21, 2); some may be outside 0 to 1.
        box: x, y, width and height of the hand, within 0 to 1.
        words: Words that describe the image.
        caption: Sentence with these words.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    box: tuple[float, float, float, float]
    words: Attributes
    caption: str


def _placed(mesh: Mesh, posed: PosedHand, move: np.ndarray) -> Mesh:
    """Bring `mesh` from a right hand's frame into the image's and move it by `move`."""
    faces = mesh.faces[:, ::-1] if posed.mirrored else mesh.faces
    vertices, normals = posed.to_image(mesh.vertices) + move, posed.to_image(mesh.normals)
    return replace(mesh, vertices=vertices, normals=normals, faces=faces)


def _frame(hand: np.ndarray, with_face: bool, rng: np.random.Generator) -> tuple[Camera, np.ndarray]:
    """Return a camera and the shift of a hand of vertices (n, 3) with which it fills a natural part of the image."""
    move = -0.5 * (hand.min(0) + hand.max(0))
    distance = rng.uniform(6.5, 11.0)
    centered = hand + move
    flat = centered[:, :2] * (distance / (distance - centered[:, 2:3]))
    width, height = flat.max(0) - flat.min(0)
    if rng.random() < SMALL_SHARE:
        part, wander, up = rng.uniform(0.38, 0.58), 0.22, 0.03
    else:
        part, wander, up = rng.uniform(0.60, 0.84), 0.06, 0.03
    if with_face:
        # Room for the face above the hand.
        part, wander, up = 0.8 * part, 0.5 * wander, -0.14
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


def _face(person: Person, lips: np.ndarray, rng: np.random.Generator) -> Surface:
    skin = to_linear(np.array(person.skin_color))
    hair = to_linear(np.array([(0.08, 0.06, 0.05), (0.25, 0.15, 0.08), (0.62, 0.45, 0.22)][int(rng.integers(3))]))
    mesh = face_mesh(skin, hair, to_linear(np.array(person.sleeve_color)))
    return Surface(replace(mesh, vertices=(mesh.vertices - LIPS + lips).astype(np.float32)), np.ones(3), 0.55, 0.3)


def make_image(gesture: str, person: Person, rng: np.random.Generator, *, size: int, samples: int) -> RenderedImage:
    """Render `person` making `gesture`, or an arbitrary pose for `no_gesture`; see `render_pose`."""
    return render_pose(sample_pose(gesture, person.shape, rng), gesture, person, rng, size=size, samples=samples)


def render_pose(
    posed: PosedHand, gesture: str, person: Person, rng: np.random.Generator, *, size: int, samples: int
) -> RenderedImage:
    """Render a posed hand of `person` in a scene sampled from `rng`, with `samples` paths per pixel."""
    wall_word, light_word = str(rng.choice(list(WALLS))), str(rng.choice(list(LIGHTS)))
    wall = to_linear(np.array(shade(WALLS[wall_word], rng, 0.05)))
    light = _lighting(light_word, rng)
    words = Attributes("left" if posed.mirrored else "right", person.skin, person.sleeve, wall_word, light_word)
    caption = describe(words, rng)

    skin_color = to_linear(np.array(person.skin_color))
    # The darker the skin, the paler the palm looks beside it.
    pale_palm = 0.08 + 0.9 * max(0.0, 0.5 - float(skin_color.mean()))
    # About one voxel per pixel, since finer detail is invisible.
    mesh = hand_mesh(person.shape, posed.skeleton, float(np.clip(2.5 / size, 0.016, 0.039)), pale_palm)
    # Framing and box follow the hand without its forearm, as annotators draw it.
    in_hand = mesh.vertices @ posed.skeleton.forearm < 0.06
    camera, move = _frame(_placed(mesh, posed, np.zeros(3)).vertices[in_hand], gesture == "mute", rng)
    skin = _placed(mesh, posed, move)
    sleeve = sleeve_mesh(posed.skeleton, person.sleeve_start, person.sleeve_width, rng.uniform(0.0, 6.0))
    surfaces = [
        Surface(skin, skin_color, 0.5, 0.35),
        Surface(_placed(sleeve, posed, move), to_linear(np.array(person.sleeve_color)), 1.0, 0.0),
    ]
    joints = posed.to_image(posed.skeleton.joints) + move
    if gesture == "mute":
        # The finger is in front of the lips, with its tip at the nose.
        surfaces.append(_face(person, joints[7] + [*rng.normal(0.0, 0.05, 2), -0.14], rng))
    elif gesture == NO_GESTURE and rng.random() < _FACE_SHARE:
        surfaces.append(_face(person, joints[9] + [*rng.normal(0.0, 0.6, 2), -rng.uniform(0.8, 1.6)], rng))

    pixels = render(surfaces, light, camera, wall, size=size, samples=samples, seed=int(rng.integers(2**31)))
    outline = camera.project(skin.vertices[in_hand])
    low = np.clip(outline.min(0) - _MARGIN, 0.0, 1.0)
    high = np.clip(outline.max(0) + _MARGIN, 0.0, 1.0)
    box = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
    return RenderedImage(pixels, camera.project(joints), box, words, caption)
