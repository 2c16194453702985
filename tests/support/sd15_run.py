"""Every stage at Stable Diffusion 1.5's size, 256 px.

`python -m tests.support.sd15_run FOLDER` prints the peak memory.
"""

import resource
import sys
from pathlib import Path

from hand1000.config.settings import Settings, load_settings
from hand1000.hands.detection import detect_hands
from hand1000.hands.stage1 import compute_mean_feature
from hand1000.models.fusion import double_fusion, gesture_indices
from hand1000.pipelines.pipeline_hand1000 import build_pipeline
from hand1000.training.context import TrainContext
from hand1000.training.encoded_dataset import encode_dataset
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3_io import Stage3Inputs, setup_stage3
from tests.support.rendered_hands import render_hand, write_image_set
from tests.support.sd15_models import random_sd15


def main(folder: Path) -> None:
    """Stage I on rendered hands, a step of each part of Stages II and III, two steps of the sampler."""
    values = load_settings("default").model_dump()
    values["stage2"] |= {"fusion_steps": 1, "fusion_batch_size": 1, "embedding_steps": 1, "embedding_batch_size": 1}
    values["stage3"] |= {"steps": 1, "batch_size": 1, "micro_batch_size": 1, "ema_decay": 0.0}
    values["compute"] |= {"gradient_checkpointing": True}
    settings = Settings.model_validate(values)
    records = write_image_set(folder, [render_hand("call", 1, size=256)])
    landmarks = detect_hands(folder, records, min_detection_confidence=0.5)
    feature = compute_mean_feature(landmarks, gesture="call", kind="normalized", max_missed=0.0)

    base = random_sd15(sample_size=32)
    data = encode_dataset(base, folder, records, lambda *_: None)
    assert data.latents.shape == (1, 4, 32, 32) and data.text_embeddings.shape == (1, 77, 768)
    context = TrainContext(seed=0, compute=settings.compute)
    features = {"call": feature.mean_tensor()}
    fusion, _ = train_fusion(base, data, features, settings.stage2, context)
    h = double_fusion(data.text_embeddings, fusion, 0.7, gesture_indices(fusion, data.gestures))
    start = data.conditioning.with_tokens(h)
    embeddings, _ = optimize_all_embeddings(base, data.latents, start, data.file_names, settings.stage2, context)
    inputs = Stage3Inputs(data, fusion, embeddings)
    weights, history = setup_stage3(base, inputs, settings, context, folder).train()
    assert len(weights) == 686 and history[0]["loss"] > 0
    drawing = settings.generation.model_copy(update={"num_inference_steps": 2}).sampler_defaults()
    (image,) = build_pipeline(base, fusion=fusion, **drawing)("a hand, making phone call hand gesture").images
    assert image.size == (256, 256)
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
