"""What all tasks share: shards, the key of a result, and the specs that a cluster would be given."""

from pathlib import Path

import pytest
from flytekit.types.directory import FlyteDirectory

from hand1000.core.errors import Hand1000Error
from tasks.context import TaskContext, address, digest, run_cached, shard_range


@pytest.mark.parametrize(("count", "unit", "shards"), [(10, 1, 3), (10, 4, 3), (3, 2, 5), (1, 25, 1), (100, 25, 7)])
def test_shards_cover_everything_once_and_cut_no_batch(count: int, unit: int, shards: int) -> None:
    ranges = [shard_range(count, unit, shard, shards) for shard in range(shards)]
    assert [index for part in ranges for index in part] == list(range(count))
    assert all(part.start % unit == 0 for part in ranges if len(part))


def made(root: Path, builds: list[str], **inputs: object) -> FlyteDirectory:
    def build(work: TaskContext) -> None:
        builds.append("built")
        (work.out / "file").write_text(str(inputs["text"]))

    return run_cached("try_task", root=str(root), run="", inputs=inputs, build=build)


def test_a_result_is_made_once_and_named_by_its_content(tmp_path: Path) -> None:
    builds: list[str] = []
    first = made(tmp_path, builds, text="a", other=1)
    assert address(made(tmp_path, builds, text="a", other=1)) == address(first) and builds == ["built"]
    # Other inputs that give the same content give the same artifact.
    assert address(made(tmp_path, builds, text="a", other=2)) == address(first) and len(builds) == 2
    assert digest(made(tmp_path, builds, text="b", other=1)) != digest(first)


def test_an_artifact_as_input_stands_for_its_content(tmp_path: Path) -> None:
    builds: list[str] = []
    source = made(tmp_path, builds, text="a")
    made(tmp_path, builds, text="x", source=source)
    made(tmp_path, builds, text="x", source=FlyteDirectory(address(source)))
    assert len(builds) == 2


def test_a_deleted_artifact_is_made_again(tmp_path: Path) -> None:
    builds: list[str] = []
    first = made(tmp_path, builds, text="a")
    (Path(address(first)) / "file").unlink()
    assert address(made(tmp_path, builds, text="a")) == address(first)
    assert len(builds) == 2 and (Path(address(first)) / "file").read_text() == "a"


def test_a_failed_build_publishes_nothing(tmp_path: Path) -> None:
    def build(work: TaskContext) -> None:
        (work.out / "half").write_text("half")
        raise Hand1000Error("no")

    with pytest.raises(Hand1000Error):
        run_cached("try_task", root=str(tmp_path), run="", inputs={}, build=build)
    assert not (tmp_path / "artifacts").exists() and not (tmp_path / "results").exists()
