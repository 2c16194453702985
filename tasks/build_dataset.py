"""Caption, complete, measure and publish a data set."""

import os
from pathlib import Path

from flytekit.types.directory import FlyteDirectory

from hand1000.config.caption_settings import DatasetSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached, shard_range

SPLITS = ("train", "test")
ENDPOINT_KEY = "HAND1000_ENDPOINT_KEY"
SHOWN = 24


@cluster_task(cache=False)
def job_indices(gesture: str, settings: DatasetSettings, shards: int) -> list[int]:
    """A job a captioner and shard; says at once if `gesture` is not one of HaGRID's."""
    from hand1000.gestures import gesture_phrase

    gesture_phrase(gesture)
    return list(range(len(settings.captioners) * shards))


@cluster_task(ignored_inputs=("root",))
def caption_job(dataset: FlyteDirectory, settings: DatasetSettings, job: int, shards: int, root: str) -> Artifact:
    """One captioner's captions of one shard of both splits: `train.jsonl` and `test.jsonl`."""
    from hand1000.captions.choose import load_captioner

    chosen = settings.captioners[job // shards]
    shard = job % shards
    captioner = load_captioner(chosen)
    identity = {"captioner": captioner.name, "options": chosen.model_dump(exclude={"source", "batch_size"})}

    def build(work: TaskContext) -> None:
        from hand1000.captions.captioners import write_captions
        from hand1000.captions.collect import collect_captions
        from hand1000.data.imageset import read_image_set
        from hand1000.storage.digests import digest_file, digest_json

        ledger = work.store.ledger("captions", digest_json(identity))
        for split in SPLITS:
            folder = work.read(dataset) / split
            records = read_image_set(folder)
            part = [records[index] for index in shard_range(len(records), 1, shard, shards)]
            paths = [folder / record.file_name for record in part]
            # What comes with the data may differ between equal images; a model's captions depend on the image alone.
            digests = [
                digest_json([digest_file(path), record.caption if chosen.kind == "dataset" else None])
                for path, record in zip(paths, part, strict=True)
            ]
            written = collect_captions(
                captioner,
                paths,
                digests,
                [record.caption for record in part],
                ledger=ledger,
                batch_size=chosen.batch_size,
                progress=work.report,
            )
            names = [record.file_name for record in part]
            write_captions(work.out / f"{split}.jsonl", dict(zip(names, written, strict=True)), captioner.name)

    return run_cached(
        "caption_job",
        root=root,
        run="",
        build=build,
        label=f"{chosen.kind}, shard {shard + 1} of {shards}",
        inputs={"dataset": dataset, "identity": identity, "shard": shard, "shards": shards},
    )


@cluster_task(ignored_inputs=("root",))
def complete_job(
    captions: FlyteDirectory, gesture: str, settings: DatasetSettings, base_model: str, root: str
) -> Artifact:
    """The captions of one job with the gesture's phrase, and how each got it."""
    from hand1000.captions.choose import load_writer
    from hand1000.storage.hub import model_identity

    completion = settings.completion
    writer = load_writer(completion, os.environ.get(ENDPOINT_KEY, ""))

    def build(work: TaskContext) -> None:
        from transformers import CLIPTokenizer

        from hand1000.captions.captioners import read_captions
        from hand1000.captions.records import CompletedLine, write_completed
        from hand1000.captions.rewrite import complete_captions
        from hand1000.storage.files import read_jsonl
        from hand1000.storage.hub import model_folder

        tokenizer = CLIPTokenizer.from_pretrained(model_folder(base_model) / "tokenizer")
        for split in SPLITS:
            path = work.read(captions) / f"{split}.jsonl"
            written = read_captions(path)
            names, texts = list(written), list(written.values())
            captioner = next((row["captioner"] for _, row in read_jsonl(path)), "")
            done = complete_captions(
                texts,
                gesture,
                writer=writer,
                attempts=completion.attempts,
                count_tokens=lambda text: len(tokenizer(text, verbose=False).input_ids),
                max_tokens=tokenizer.model_max_length,
            )
            work.report(len(done), len(done))
            write_completed(
                work.out / f"{split}.jsonl",
                [
                    CompletedLine(file_name=name, caption=text, captioner=captioner, completed=completed)
                    for name, text, completed in zip(names, texts, done, strict=True)
                ],
            )

    return run_cached(
        "complete_job",
        root=root,
        run="",
        build=build,
        inputs={
            "captions": captions,
            "gesture": gesture,
            "writer": writer.name if writer else "rule",
            "attempts": completion.attempts,
            "tokenizer": model_identity(base_model),
        },
    )


@cluster_task(ignored_inputs=("root",))
def publish(
    dataset: FlyteDirectory,
    completed: list[FlyteDirectory],
    gesture: str,
    settings: DatasetSettings,
    shards: int,
    root: str,
) -> Artifact:
    """The data set with its card, and beside it `quality.json` and `captions.html`, every captioner side by side."""
    from hand1000.captions.metrics import Clip

    clip = Clip(settings.clip) if settings.clip else None

    def build(work: TaskContext) -> None:
        from hand1000.captions.metrics import compute_caption_metrics
        from hand1000.captions.records import read_completed
        from hand1000.data.publish import publish_data_set
        from hand1000.reports.captions import render_captions_page
        from hand1000.storage.files import write_json, write_text

        prepared = work.read(dataset)
        folders = [work.read(part) for part in completed]
        by_captioner = [
            {split: read_completed([folder / f"{split}.jsonl" for folder in folders[start : start + shards]])
             for split in SPLITS}
            for start in range(0, len(folders), shards)
        ]  # fmt: skip
        quality = []
        for lines in by_captioner:
            named: list[tuple[Path, str, str]] = [
                (prepared / split / name, line.completed.text, line.captioner)
                for split in SPLITS
                for name, line in sorted(lines[split].items())
            ]
            quality.append(
                compute_caption_metrics(
                    [path for path, _, _ in named],
                    [text for _, text, _ in named],
                    gesture,
                    captioner=named[0][2],
                    clip=clip,
                    progress=work.report,
                )
            )
        publish_data_set(prepared, by_captioner[0], quality, work.out)
        write_json(work.out / "quality.json", [one.model_dump(mode="json") for one in quality])
        shown = sorted(by_captioner[0]["train"])[:SHOWN]
        rows = [(prepared / "train" / name, [lines["train"][name] for lines in by_captioner]) for name in shown]
        write_text(work.out / "captions.html", render_captions_page(gesture, quality, rows))

    return run_cached(
        "publish",
        root=root,
        run="",
        build=build,
        inputs={"dataset": dataset, "completed": completed, "gesture": gesture, "clip": clip.name if clip else None},
    )
