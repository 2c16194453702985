"""Sources on S3 give the same datasets as folders do."""

from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.data.prepare import prepare_image_sets
from hand1000.data.selection import select_images
from hand1000.storage.digests import tree_manifest
from hand1000.storage.s3_client import s3_client
from hand1000.storage.sources import S3Source, local_copy, open_source
from tests.support.faulty_proxy import faulty_proxy
from tests.support.hagrid_source import NO_FILTERS, data_settings, write_hagrid
from tests.support.stores import files_of


def upload(folder: Path, address: str) -> None:
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = s3_client()
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


def prepared(address: Path | str, out: Path, train: int, test: int) -> str:
    chosen = select_images(
        open_source(address),
        ("four",),
        num_train=train,
        num_test=test,
        seed=1,
        filters=NO_FILTERS,
    )
    prepare_image_sets(chosen, out, data_settings(), resolution=16, seed=1)
    return tree_manifest(out).digest


def test_prefix_equals_its_folder_and_only_selected_are_fetched(s3_root, tmp_path, monkeypatch):
    source = write_hagrid(tmp_path / "source", {f"u{i}": 3 for i in range(6)}, "train")
    write_hagrid(source, {f"w{i}": 2 for i in range(3)}, "test")
    write_hagrid(source, {"x": 1}, gesture="ok")
    upload(source, s3_root)
    fetched: list[str] = []
    fetch = S3Source.local_path
    monkeypatch.setattr(S3Source, "local_path", lambda self, name: (fetched.append(name), fetch(self, name))[1])
    assert prepared(s3_root, tmp_path / "s3", 5, 2) == prepared(source, tmp_path / "local", 5, 2)
    images = [key for key in fetched if key.endswith(".jpg")]
    assert len(images) == 7 and not any("ok" in key for key in fetched)

    arguments = {"num_train": 5, "num_test": 2, "seed": 1, "filters": NO_FILTERS}
    before = select_images(open_source(s3_root), ("four",), **arguments).cache_key_fields()
    assert select_images(open_source(s3_root), ("four",), **arguments).cache_key_fields() == before
    Image.new("RGB", (30, 30), "red").save(source / "four" / Path(images[0]).name)
    upload(source, s3_root)
    assert select_images(open_source(s3_root), ("four",), **arguments).cache_key_fields() != before


def test_a_users_images_on_s3(s3_root, tmp_path):
    (tmp_path / "own").mkdir()
    for index in range(6):
        Image.new("RGB", (20, 20), (40 * index, 0, 0)).save(tmp_path / "own" / f"{index}.png")
    upload(tmp_path / "own", s3_root)
    assert prepared(s3_root, tmp_path / "s3", 3, 2) == prepared(tmp_path / "own", tmp_path / "local", 3, 2)
    with pytest.raises(Hand1000Error, match="nothing-here: no images of 'four'; it is empty"):
        prepared(f"{s3_root}/nothing-here", tmp_path / "x", 1, 1)
    with pytest.raises(Hand1000Error, match="no-such-bucket-of-ours.*create it or correct the name"):
        prepared("s3://no-such-bucket-of-ours/x", tmp_path / "x", 1, 1)


@pytest.mark.parametrize(
    "name", ["../up.json", "a/../../up.json", "/root.json", "a//b.json", "a/./b.json", "a%5Cb.json"]
)
def test_a_listed_key_leads_nowhere_else(s3_server, s3_root, tmp_path, monkeypatch, name):
    client, (bucket, _, prefix) = s3_client(), s3_root.removeprefix("s3://").partition("/")
    client.put_object(Bucket=bucket, Key=f"{prefix}/model/config.json", Body=b"{}")
    before, after = (quote(f"{prefix}/model/{key}", safe="/%") for key in ("config.json", name))
    with faulty_proxy(s3_server, share=0.0, seed=1) as proxy:
        # No server here keeps such a key, so that a listing is changed on its way.
        proxy.edit = lambda method, path, body: body.replace(f"<Key>{before}<".encode(), f"<Key>{after}<".encode())
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("HAND1000_NODE_CACHE", str(tmp_path / "node" / "cache"))
        with pytest.raises(Hand1000Error, match="json': not a plain relative path"):
            local_copy(f"{s3_root}/model")
    assert not [path for path in tmp_path.rglob("*.json") if path.is_file()]


def test_a_marker_of_a_folder_is_no_file(s3_root):
    client, (bucket, _, prefix) = s3_client(), s3_root.removeprefix("s3://").partition("/")
    for name, data in (("", b""), ("unet/", b""), ("unet/config.json", b"{}")):
        client.put_object(Bucket=bucket, Key=f"{prefix}/model/{name}", Body=data)
    assert files_of(local_copy(f"{s3_root}/model")) == {"unet/config.json": "{}"}
