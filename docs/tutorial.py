"""Teach the gesture `four` to the small base model: the three stages on rendered hands, without Flyte."""

from pathlib import Path
from tempfile import mkdtemp

from hand1000.captions.completion import complete_caption
from hand1000.config.settings import Settings
from hand1000.data.imageset import read_image_set
from hand1000.data.prepare import prepare_image_sets
from hand1000.data.render.dataset import render_dataset
from hand1000.data.selection import select_images
from hand1000.hands.detection import detect_hands
from hand1000.hands.stage1 import compute_mean_feature
from hand1000.models.base_model import load_base_model
from hand1000.models.fusion import double_fusion, gesture_indices
from hand1000.pipelines.generation import generate, make_image_grid
from hand1000.pipelines.pipeline_hand1000 import build_pipeline
from hand1000.storage.sources import open_source
from hand1000.training.context import TrainContext
from hand1000.training.encoded_dataset import encode_dataset
from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
from hand1000.training.stage3_io import Stage3Inputs, load_trained_weights, setup_stage3

GESTURE, TRAIN, TEST, STEPS = "four", 100, 8, 300
settings = Settings.model_validate({"preset": "demo", "stage3": {"steps": STEPS}})
context = TrainContext(seed=0, compute=settings.compute)
folder = Path(mkdtemp())

# %% Data: render hands, crop them, and complete each caption with the gesture's phrase
render_dataset(folder / "source", {GESTURE: {"train": TRAIN, "test": TEST}}, seed=0, size=64, workers=1)
source, filters = open_source(folder / "source"), settings.data.filters
selection = select_images(source, [GESTURE], num_train=TRAIN, num_test=TEST, seed=0, filters=filters)
prepare_image_sets(selection, folder, settings.data, resolution=64, seed=0)
train, test = (
    [record.model_copy(update={"text": complete_caption(record.caption, GESTURE)}) for record in read_image_set(split)]
    for split in (folder / "train", folder / "test")
)

# %% Stage I: the mean hand f
landmarks = detect_hands(folder / "train", train, min_detection_confidence=0.5)
feature = compute_mean_feature(landmarks, gesture=GESTURE, kind="normalized", max_missed=0.5)

# %% Stage II: train the fusion, then optimize the embedding h* of each image
base, tuned = load_base_model("models/small-base"), load_base_model("models/small-base")
data = encode_dataset(base, folder / "train", train)
fusion, _ = train_fusion(base, data, {GESTURE: feature.mean_tensor()}, settings.stage2, context)
ids, lambda_ = gesture_indices(fusion, data.gestures), settings.stage2.lambda_
start = data.conditioning.with_tokens(double_fusion(data.text_embeddings, fusion, lambda_, ids).detach())
embeddings, _ = optimize_all_embeddings(base, data.latents, start, data.file_names, settings.stage2, context)

# %% Stage III: fine-tune the UNet of the second copy
weights, history = setup_stage3(tuned, Stage3Inputs(data, fusion, embeddings), settings, context, folder).train()
load_trained_weights(tuned.denoiser, settings.stage3, weights)

# %% Generate the test prompts: the base model above, the tuned model below
prompts, sampler = [record.text for record in test], settings.generation.sampler_defaults()
before, after = build_pipeline(base, **sampler), build_pipeline(base, tuned=tuned.denoiser, fusion=fusion, **sampler)
images = [image for pipeline in (before, after) for image in generate(pipeline, prompts, range(TEST))]
make_image_grid(images, TEST, row_labels=["base model", "tuned model"]).save("before-after.png")
