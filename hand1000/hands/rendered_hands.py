"""Hands that MediaPipe detects in rendered images, under settings of the renderer and degradations of its images.

The poses are those of `hand1000.hands.gesture_poses`, which are wider than the renderer's own, or the renderer's.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.rng import numpy_generator
from hand1000.data.render.people import make_person
from hand1000.data.render.poses import PosedHand
from hand1000.data.render.rendered_image import make_image, render_pose
from hand1000.data.render.skeleton import HandPose, Thumb, forward
from hand1000.gestures import NO_GESTURE, TWO_HANDED
from hand1000.hands.classifier_training import LabeledHands
from hand1000.hands.detector import Hand, HandDetector
from hand1000.hands.kinematics import mean_bones
from hand1000.hands.sampled_hands import sample_pose

CONFIDENCE = 0.5

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class RenderSetting:
    """How images are rendered and degraded.

    Attributes:
        name: Name of the setting, which decides the people and the scenes.
        size: Side of the images in pixels.
        changes: Degradations by the name of their row in the table of results; each gives an image of its own.
        wide: Whether the poses are the wide ones of `gesture_poses`; otherwise they are the renderer's. Those of hands
            without a gesture are always wide, because the renderer's may happen to make one.
        samples: Paths per pixel; fewer are faster and leave noise.
    """

    name: str
    size: int
    changes: Mapping[str, Change]
    wide: bool = False
    samples: int = 16


def keep(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Return the image itself."""
    return image


def degrade(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Shrink an image (S, S, 3) uint8 to 0.4 of its size or more, enlarge it again and add noise."""
    size = image.shape[0]
    small = round(size * generator.uniform(0.4, 1.0))
    blurred = Image.fromarray(image).resize((small, small), Image.Resampling.BOX).resize((size, size))
    noisy = np.asarray(blurred, np.float64) + generator.normal(0.0, generator.uniform(0.0, 6.0), image.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def mirror(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Mirror an image, as a selfie is."""
    return np.ascontiguousarray(image[:, ::-1])


def rotate(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rotate an image by 20 degrees to one of both sides; the border's color fills the corners."""
    angle = float(generator.choice([-20.0, 20.0]))
    border = tuple(int(value) for value in np.median(image[0], axis=0))
    rotated = Image.fromarray(image).rotate(angle, Image.Resampling.BICUBIC, fillcolor=border)
    return np.asarray(rotated)


def turn(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Mirror half of the images, shrink them to 0.5 of their size or more, and rotate them by 30 degrees or less."""
    size = image.shape[0]
    mirrored = Image.fromarray(image[:, :: -1 if generator.random() < 0.5 else 1])
    border = tuple(int(value) for value in np.median(image[0], axis=0))
    angle, scale = np.radians(generator.uniform(-30.0, 30.0)), generator.uniform(0.5, 1.0)
    cosine, sine, middle = np.cos(angle) / scale, np.sin(angle) / scale, size / 2
    rows = (cosine, sine, middle - (cosine + sine) * middle, -sine, cosine, middle - (cosine - sine) * middle)
    return np.asarray(
        mirrored.transform((size, size), Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC, fillcolor=border)
    )


def compress(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Compress an image as JPEG of a quality of 25 to 60."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(generator.integers(25, 61)))
    return np.asarray(Image.open(file))


def shrink(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Halve an image within its frame, so that the hand is small; the border's pixels are repeated around it."""
    size = image.shape[0]
    small = np.asarray(Image.fromarray(image).resize((size // 2, size // 2), Image.Resampling.BOX))
    before = (size - size // 2) // 2
    after = size - size // 2 - before
    return np.pad(small, ((before, after), (before, after), (0, 0)), "edge")


def blur_and_dim(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Blur an image as an unfocused camera does, and darken it to 0.5 to 0.8 of its light, with noise."""
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(image.shape[0] / 100)), np.float64)
    dim = blurred * generator.uniform(0.5, 0.8) + generator.normal(0.0, 4.0, image.shape)
    return np.clip(np.round(dim), 0, 255).astype(np.uint8)


def detect_rendered_hands(
    setting: RenderSetting, counts: Mapping[str, int], *, seed: int, on_progress: ProgressCallback = noop_callback
) -> dict[str, LabeledHands]:
    """Render so many images of each gesture under a setting, and detect the hands of each change of them.

    No two images show the same person; another seed gives other people.
    """
    hands: dict[str, list[Hand]] = {name: [] for name in setting.changes}
    labels: dict[str, list[str]] = {name: [] for name in setting.changes}
    missing = Counter[str]()
    tasks = [(gesture, index) for gesture, count in counts.items() for index in range(count)]
    with HandDetector(CONFIDENCE, max_hands=2) as detector:
        for done, (gesture, index) in enumerate(tasks, 1):
            image = _render(setting, gesture, numpy_generator(seed, setting.name, setting.size, gesture, index))
            for name, change in setting.changes.items():
                detected = detector.detect(
                    change(image, numpy_generator(seed, setting.name, setting.size, gesture, index, name))
                )
                # A second hand in the image of one is a mistake of the detector, not of the classifier.
                detected = detected if gesture in TWO_HANDED else detected[:1]
                hands[name] += detected
                labels[name] += [gesture] * len(detected)
                missing[name] += not detected
            on_progress(done, len(tasks), {})
    return {
        name: LabeledHands(
            np.array([hand.landmarks for hand in hands[name]], np.float32).reshape(-1, 21, 3),
            np.array([hand.right for hand in hands[name]], bool),
            labels[name],
            missing[name],
        )
        for name in setting.changes
    }


def _render(setting: RenderSetting, gesture: str, rng: np.random.Generator) -> np.ndarray:
    person = make_person("", rng)
    if not setting.wide and gesture != NO_GESTURE:
        return make_image(gesture, person, rng, size=setting.size, samples=setting.samples).pixels
    angles, rotations = sample_pose(gesture, mean_bones(1), rng)
    thumb = Thumb(*angles.thumb[0].tolist())
    pose = HandPose(angles.flexion[0], angles.abduction[0], thumb, rng.normal(0.0, [10.0, 8.0]))
    posed = PosedHand(forward(person.shape, pose), rotations[0], bool(rng.integers(2)))
    return render_pose([posed], gesture, person, rng, size=setting.size, samples=setting.samples).pixels
