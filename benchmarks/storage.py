"""Storage beside its peers: S3 beside s3transfer alone, checkpoints beside safetensors' functions.

    .venv/bin/python -m benchmarks.bench --only storage [--short]

The S3 server is SeaweedFS on this machine. It shares the processors with both sides, so uploads are mostly its time.
The product's side includes the sha256 of every byte, before an upload, since it names the artifact, and as a download
arrives.
"""

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rows import BenchOptions, Comparison, Row, measure_row


class Sizes(NamedTuple):
    """How much is moved: bytes of the large file, number and bytes of the small ones, elements of a state's group."""

    large: int = 524_000_000
    number: int = 1000
    small: int = 500_000
    elements: int = 290_000_000
    parameters: int = 100_000_000


SHORT = Sizes(large=20_000_000, number=20, small=5_000, elements=100_000, parameters=1_000_000)


def measure_rows(options: BenchOptions) -> Iterator[Row]:
    """Yield the rows of storage."""
    sizes = SHORT if options.short else Sizes()
    with tempfile.TemporaryDirectory() as folder:
        with _server(Path(folder)):
            yield from _s3_rows(Path(folder), f"one file of {sizes.large / 1e6:.0f} MB", [sizes.large], options, 0.95)
            name = f"{sizes.number:,} files of {sizes.small / 1e6:g} MB"
            yield from _s3_rows(Path(folder), name, [sizes.small] * sizes.number, options, 1.0)
        yield from _checkpoint_rows(Path(folder), sizes.elements, options)
        yield _resume_row(Path(folder), sizes.parameters, options)


@contextmanager
def _server(folder: Path) -> Iterator[None]:
    """Run an S3 server, and name it in the environment."""
    from tests.support.s3_server import s3_server

    (folder / "server").mkdir()
    before = dict(os.environ)
    try:
        with s3_server(folder / "server", volumes=400) as variables:
            os.environ.update(variables)
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder / "server")


class _S3Work:
    """Publishing and fetching an artifact of files of some sizes, and the same by s3transfer."""

    def __init__(self, folder: Path, sizes: list[int]) -> None:
        from hand1000.storage.digests import tree_manifest
        from hand1000.storage.s3 import S3Backend
        from tests.support.s3_server import BUCKET

        self.bucket, self.folder, self.source = BUCKET, folder, folder / f"source{len(sizes)}"
        self.source.mkdir()
        for number, size in enumerate(sizes):
            (self.source / f"{number}.bin").write_bytes(os.urandom(size))
        self.manifest, self.numbers = tree_manifest(self.source), count()
        self.names = [entry.name for entry in self.manifest.files]
        self.backend = S3Backend(f"s3://{BUCKET}/{len(sizes)}")
        self.backend.write("warm", b"")

    def forget(self) -> None:
        """Have the product hash the files again."""
        from hand1000.storage.digests import forget_digest

        for path in self.source.iterdir():
            forget_digest(path)

    def describe_hashing(self, _: float) -> str:
        """Say how long the digests take that name the artifact, and so come before its upload."""
        from hand1000.storage.digests import tree_manifest

        self.forget()
        begun = time.perf_counter()
        tree_manifest(self.source)
        seconds = time.perf_counter() - begun
        return (
            f"the sha256 that names the artifact takes {seconds:.2f} s by itself; the goal needs it to be known before"
        )

    def publish(self) -> str:
        """Upload by the product, and return the prefix of the objects."""
        from hand1000.storage.artifacts import ArtifactStore

        address = ArtifactStore(self.backend).publish(f"kind{next(self.numbers)}", self.source)
        return address.removeprefix(f"s3://{self.bucket}/")

    def upload(self) -> str:
        """Upload by s3transfer, and return the prefix of the objects."""
        prefix = f"peer/{len(self.names)}/{next(self.numbers)}"
        with self._manager() as manager:
            paths = [(str(self.source / name), f"{prefix}/{name}") for name in self.names]
            for future in [manager.upload(path, self.bucket, key) for path, key in paths]:
                future.result()
        return prefix

    def are_stored(self, *prefixes: str) -> bool:
        """Whether the objects of each prefix are the files."""
        return self.are_equal(*(self.download(prefix) for prefix in prefixes))

    def fetch(self, prefix: str) -> Path:
        """Download by the product."""
        from hand1000.storage.artifacts import ArtifactStore

        return ArtifactStore(self.backend).fetch(f"s3://{self.bucket}/{prefix}")

    def download(self, prefix: str) -> Path:
        """Download by s3transfer."""
        target = self.folder / f"down{next(self.numbers)}"
        target.mkdir()
        with self._manager() as manager:
            keys = [(f"{prefix}/{name}", str(target / name)) for name in self.names]
            for future in [manager.download(self.bucket, key, path) for key, path in keys]:
                future.result()
        return target

    def are_equal(self, *folders: Path) -> bool:
        """Whether the folders hold the files; they are removed."""
        from hand1000.storage.digests import tree_manifest

        equal = all(tree_manifest(folder) == self.manifest for folder in folders)
        for folder in folders:
            shutil.rmtree(folder)
        return equal

    def _manager(self) -> Any:
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        return create_transfer_manager(self.backend.client, TransferConfig(preferred_transfer_client="classic"))


def _s3_rows(folder: Path, name: str, sizes: list[int], options: BenchOptions, goal: float) -> Iterator[Row]:
    work, peer = _S3Work(folder, sizes), "s3transfer alone"
    up = Comparison(
        f"S3, {name}, up",
        peer,
        work.publish,
        work.upload,
        work.are_stored,
        goal=goal,
        note=work.describe_hashing,
        prepare=work.forget,
    )
    yield measure_row(up, options)
    published, uploaded = work.publish(), work.upload()
    down = Comparison(
        f"S3, {name}, down",
        peer,
        lambda: work.fetch(published),
        lambda: work.download(uploaded),
        work.are_equal,
        goal=goal,
    )
    yield measure_row(down, options)
    shutil.rmtree(work.source)


def _checkpoint_rows(folder: Path, elements: int, options: BenchOptions) -> Iterator[Row]:
    """Measure a checkpoint of three groups of so many elements, of a training on the CPU, in a local root."""
    import torch
    from safetensors.torch import save_file

    from hand1000.storage.artifacts import open_store
    from hand1000.storage.digests import digest_file
    from hand1000.training.checkpoint import CheckpointWriter, TrainingState

    sizes = [elements // 20] * 20
    tensors = {
        group: {f"{number}.weight": torch.rand(size) for number, size in enumerate(sizes)}
        for group in ("weights", "average", "moments")
    }
    gigabytes = sum(tensor.nbytes for group in tensors.values() for tensor in group.values()) / 1e9
    root = open_store(str(folder / "root"))
    store, former = root.checkpoint("bench", "0" * 64), root.checkpoint("bench", "1" * 64)
    writer, state, plain = CheckpointWriter(store), TrainingState(1, tensors=tensors), folder / "plain"
    plain.mkdir()

    def write_as_before() -> None:
        with former.workspace() as workspace:
            (workspace / "state").mkdir()
            for name, group in tensors.items():
                save_file(group, workspace / "state" / f"tensors.{name}.safetensors")
            former.save(workspace / "state")

    def write_plainly() -> None:
        for name, group in tensors.items():
            save_file(group, plain / f"tensors.{name}.safetensors")
            with open(plain / f"tensors.{name}.safetensors", "rb") as file:
                os.fsync(file.fileno())

    def is_equal(*_: Any) -> bool:
        writer.wait()
        with root.workspace() as workspace:
            folders = [workspace / "new", plain if any(plain.iterdir()) else workspace / "former"]
            store.restore(folders[0], read_only=True)
            if folders[1] != plain:
                former.restore(folders[1], read_only=True)
            digests = [{path.name: digest_file(path) for path in folder.glob("*.safetensors")} for folder in folders]
            return len(digests[0]) == len(tensors) and digests[0] == digests[1]

    name, before = f"a checkpoint of {gigabytes:.1f} GB", "save_file, then sha256 of the files, as before"
    note = "the bytes are hashed while they are written; what is left is the disk, as the last of these rows shows"
    for title, wait, peer, run_peer, goal in (
        ("until it is stored", True, before, write_as_before, 2.5),
        ("until training goes on", False, before, write_as_before, 2.5),
        ("until it is stored", True, "save_file and fsync, without a digest", write_plainly, None),
    ):

        def save(wait: bool = wait) -> None:
            writer.save(state, wait=wait)

        yield measure_row(
            Comparison(f"{name}, {title}", peer, save, run_peer, is_equal, goal=goal, note=note, prepare=writer.wait),
            options,
        )
    store.clear()
    former.clear()
    shutil.rmtree(plain)


def _resume_row(folder: Path, parameters: int, options: BenchOptions) -> Row:
    """Measure the peak of memory above what stays while a training of AdamW is resumed, in units of its weights."""
    import torch
    from safetensors.torch import load_file

    from hand1000.core.devices import peak_memory, reset_peak_memory
    from hand1000.storage.artifacts import open_store
    from hand1000.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint

    def build() -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
        weights = {f"{number}": torch.nn.Parameter(torch.rand(parameters // 50)) for number in range(50)}
        return dict(weights), torch.optim.AdamW(weights.values())

    store = open_store(str(folder / "resume")).checkpoint("bench", "0" * 64)
    weights, optimizer = build()
    for parameter in weights.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(store, TrainingState(1, tensors={"weights": weights}), optimizer=optimizer)
    expected = [tensor.detach().sum().item() for tensor in weights.values()]
    del weights, optimizer, parameter

    def load_product(weights: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        load_checkpoint(store, optimizer=optimizer, targets={"weights": weights})

    def load_peer(weights: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        with store.workspace() as workspace:
            store.restore(workspace / "state")
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in load_file(workspace / "state" / "optimizer.safetensors").items():
                index, name = key.split(".")
                state.setdefault(int(index), {})[name] = value.clone()
            saved = load_file(workspace / "state" / "tensors.weights.safetensors")
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            with torch.no_grad():
                for name, value in saved.items():
                    weights[name].copy_(value)

    values: dict[Any, list[float]] = {load_product: [], load_peer: []}
    equal = True
    for load in (load_product, load_peer) if options.short else (load_product, load_peer) * 3:
        weights, optimizer = build()
        gc.collect()
        reset_peak_memory()
        load(weights, optimizer)
        peak = peak_memory()
        extra = (peak - _resident_bytes()) / (4 * parameters)
        values[load].append(max(extra, 1e-3))
        equal &= expected == [tensor.detach().sum().item() for tensor in weights.values()]
        del weights, optimizer
    return Row(
        f"resume, weights of {4 * parameters / 1e9:.1f} GB with AdamW, peak of memory above what stays",
        "load_file, load_state_dict",
        tuple(values[load_product]),
        tuple(values[load_peer]),
        limit=0.2,
        equal=equal,
        unit="x the weights",
    )


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
