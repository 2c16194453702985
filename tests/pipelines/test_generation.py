"""Generation of requests to a folder, and image grids."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hand1000.core.progress import noop_callback
from hand1000.pipelines.generation import (
    GenerationRequest,
    generate_latents,
    generate_to_dir,
    make_image_grid,
    pipeline_generator,
)
from tests.support.tiny_models import TEXTS, CrashingCheckpointStore, SimulatedKill
from tests.support.tiny_pipelines import pipeline_of


def test_generation_resumes_after_a_kill(tmp_path: Path) -> None:
    generator = pipeline_generator(pipeline_of("four"))
    requests = [GenerationRequest(f"{index}.png", TEXTS[index % 2], index, "four") for index in range(6)]

    def run(out: Path, checkpoint: CrashingCheckpointStore) -> list[int]:
        out.mkdir()
        done: list[int] = []
        generate_to_dir(
            generator,
            requests,
            out,
            batch_size=2,
            checkpoint=checkpoint,
            on_progress=lambda count, *_: done.append(count),
        )
        return done

    assert run(tmp_path / "whole", CrashingCheckpointStore(tmp_path / "a")) == [2, 4, 6]
    with pytest.raises(SimulatedKill):
        run(tmp_path / "cut", CrashingCheckpointStore(tmp_path / "b", crash_after=1))
    assert run(tmp_path / "resumed", CrashingCheckpointStore(tmp_path / "b")) == [4, 6]
    for request in requests:
        whole, resumed = ((tmp_path / run / request.file_name).read_bytes() for run in ("whole", "resumed"))
        assert whole == resumed


def test_latents_resume_after_a_kill_to_the_same_bits(tmp_path: Path) -> None:
    pipeline = pipeline_of("four")

    def run(checkpoint: CrashingCheckpointStore) -> tuple[torch.Tensor, list[int]]:
        done: list[int] = []
        texts = [TEXTS[index % 2] for index in range(5)]
        latents = generate_latents(
            pipeline,
            texts,
            range(5),
            batch_size=2,
            checkpoint=checkpoint,
            on_progress=lambda count, *_: done.append(count),
        )
        return latents, done

    whole, done = run(CrashingCheckpointStore(tmp_path / "a"))
    assert done == [2, 4, 5] and whole.shape[0] == 5
    with pytest.raises(SimulatedKill):
        run(CrashingCheckpointStore(tmp_path / "b", crash_after=1))
    resumed, done = run(CrashingCheckpointStore(tmp_path / "b"))
    assert done == [4, 5] and torch.equal(whole, resumed)


def test_requests_are_generated_with_their_gestures(tmp_path: Path) -> None:
    generator = pipeline_generator(pipeline_of("four", "ok", strong=True))
    gestures = ["four", "ok", "ok", "four"]
    requests = [GenerationRequest(f"{index}.png", "a red hand", 1, gesture) for index, gesture in enumerate(gestures)]
    generate_to_dir(
        generator,
        requests,
        tmp_path,
        batch_size=3,
        checkpoint=CrashingCheckpointStore(tmp_path / "none"),
        on_progress=noop_callback,
    )
    images = [np.asarray(Image.open(tmp_path / request.file_name)).astype(int) for request in requests]
    different = [[np.abs(first - second).max() > 1 for second in images] for first in images]
    assert different == [[first != second for second in gestures] for first in gestures]


def test_image_grid_places_images_below_labels() -> None:
    images = [Image.new("RGB", (32, 32), (0, 0, shade)) for shade in range(3)]
    plain = np.asarray(make_image_grid(images, 2))
    assert plain.shape == (4 + 2 * 36, 4 + 2 * 36, 3) and (plain[40:72, 4:36] == (0, 0, 2)).all()
    assert (plain[40:, 40:] == 255).all()
    labelled = np.asarray(make_image_grid(images, 3, row_labels=["method"], column_labels=["four", "ok", "like"]))
    top, left = labelled.shape[0] - 36, labelled.shape[1] - 3 * 36
    assert (labelled[top : top + 32, left : left + 32] == (0, 0, 0)).all() and (labelled[top:, :left] < 255).any()
    assert (labelled[:top, left:] < 255).any() and (labelled[:top, :left] == 255).all()
