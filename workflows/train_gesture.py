"""One gesture, or several in one model, from images to a registered model.

pyflyte run workflows/train_gesture.py train_gesture --inputs-file workflows/configs/demo.yaml
"""

from flytekit import workflow

from hand1000.config.settings import Settings
from tasks.prepare_data import prepare_data
from tasks.registration import RegistrationResult, register
from tasks.retraining import find_champion
from tasks.start_run import check_inputs, start_run
from workflows.train_and_evaluate import train_and_evaluate


@workflow
def train_gesture(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: Settings
) -> RegistrationResult:
    """Teach the base model a gesture, evaluate it against base model and champion, register it as a candidate.

    Args:
        gesture: HaGRID's name of the gesture, such as `four`; or several with commas, `call,four,like`, for one model
            of all of them.
        images: Number of training images of each gesture; the paper uses 1,000.
        data: `sample` for rendered hands, or a folder or `s3://` prefix of images.
        base_model: A diffusers folder, an `s3://` address, or a hub id with its revision.
        root: The artifact root, a folder or `s3://bucket/prefix`.
        shards: Number of parts into which the map tasks cut their work; it does not change the result.
        settings: Everything else, see `hand1000 config show default`.

    Returns:
        The verdict of the gates in one line, the registered version, and the folder of `report.html`.
    """
    source = {"gesture": gesture, "images": images, "data": data, "base_model": base_model}
    untracked = check_inputs(gesture=gesture, base_model=base_model, settings=settings, root=root)
    # Before the tracked run, which is another one if the images are others.
    dataset = prepare_data(**source, settings=settings.data, seed=settings.seed, run=untracked)
    run = start_run(**source, settings=settings, root=root, dataset=dataset)
    champion = find_champion(gesture=gesture, shards=shards, run=run)
    evaluated = train_and_evaluate(
        **source,
        shards=shards,
        champion=champion.uri,
        champion_shard=champion.shard,
        data_seed=settings.seed,
        settings=settings,
        run=run,
    )
    return register(
        **evaluated._asdict(),
        champion=champion.uri,
        gesture=gesture,
        base_model=base_model,
        settings=settings,
        run=run,
    )
