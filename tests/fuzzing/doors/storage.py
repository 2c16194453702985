"""Doors of storage: the listing of a bucket, manifests, and small records."""

import json
import os
import random
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

from hand1000.storage.artifacts import open_store
from hand1000.storage.backend import LocalBackend
from hand1000.storage.cache import NODE_CACHE_VARIABLE
from hand1000.storage.digests import canonical_json, tree_manifest
from hand1000.storage.files import write_bytes
from hand1000.storage.inventory import list_pieces
from hand1000.storage.records import encode_record, read_record
from hand1000.storage.sources import local_copy, open_source
from tests.fuzzing.harness import Door
from tests.fuzzing.mutations import ODD_TEXTS, damage_bytes, damage_text, damage_value

KEY = "0" * 64
PARTS = ("..", ".", "", "a", "config.json", "unet", "%2e%2e", "%5C", "a%00b", "é", "~", "-x", "a" * 300, *ODD_TEXTS)


class _Bucket(BaseHTTPRequestHandler):
    """A server that answers every listing with one text, and has an object at every key."""

    listing = b""

    def do_GET(self) -> None:  # noqa: N802 (http.server's name)
        self._answer(self.listing if "list-type" in self.path else b"{}")

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer(b"")

    def _answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@cache
def _server_url() -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


def _make_listing(rng: random.Random) -> tuple[int, bytes]:
    items = []
    for _ in range(rng.choice((0, 1, 2, 5))):
        key = "/".join(rng.choice(PARTS) for _ in range(rng.choice((1, 2, 3))))
        text = escape(key.encode("utf-8", "replace").decode())
        size = rng.choice(("2", "2", "2", "0", "-1", "x", "", str(10**30)))
        time = rng.choice(("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "", "x", "9" * 30))
        items.append(
            f"<Contents><Key>p/{text}</Key><Size>{size}</Size><ETag>e</ETag><LastModified>{time}</LastModified></Contents>"
        )
    text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(items)}</ListBucketResult>"
    text = damage_text(rng, text) if rng.random() < 0.3 else text
    return rng.randrange(2**32), text.encode("utf-8", "replace")


def _copy_prefix(value: tuple[int, bytes], folder: Path) -> None:
    number, _Bucket.listing = value
    os.environ |= {"AWS_ENDPOINT_URL_S3": _server_url(), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    os.environ |= {"AWS_MAX_ATTEMPTS": "1", NODE_CACHE_VARIABLE: str(folder / "node" / "cache")}
    source = open_source("s3://bucket/p")
    for name in [*source.list_folders(), *source.list_files("")]:
        assert isinstance(name, str)
    local_copy.cache_clear()
    try:
        copy = local_copy(f"s3://bucket/p{'/' * (number % 3)}")
    finally:
        outside = [
            path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / "node/cache")
        ]
        assert not outside, f"written outside: {outside}"
    assert all(path.resolve().is_relative_to(copy) for path in copy.rglob("*"))


def _make_record(rng: random.Random) -> bytes:
    value = {"address": f"artifacts/model/{KEY}", "seconds": 1.5, "sources": ["a/b"], "x": {"y": [None]}}
    if rng.random() < 0.5:
        return damage_bytes(rng, encode_record("record.json", value))
    record = {"name": "record.json", "sha256": KEY, "value": value}
    return json.dumps(damage_value(rng, record)).encode("utf-8", "surrogatepass")


def _read_records(data: bytes, folder: Path) -> None:
    """Everything that reads a record as a cache goes on without it; who needs it says that it is damaged."""
    backend = LocalBackend(str(folder / "root"))
    store = open_store(backend.root)
    places = (f"results/model/{KEY}.json", f"provenance/model/{KEY}.json", "caches/c/k/a.json")
    for place in (*places, f"checkpoints/model/{KEY}/current.json"):
        write_bytes(folder / "root" / place, data)
    assert store.get_result("model", KEY) is None
    assert store.key_value_cache("c", "k").read() == {}
    assert not store.checkpoint("model", KEY).restore(folder / "state")
    assert set(store.provenance(f"{store.root}/artifacts/model/{KEY}")) == {"address"}
    list_pieces(store)
    write_bytes(folder / "record.json", data)
    read_record(folder / "record.json", required=True)


def _make_manifest(rng: random.Random) -> bytes:
    files = [{"name": name, "size": 1, "sha256": KEY} for name in ("a", "b/c")]
    if rng.random() < 0.5:
        files[rng.randrange(2)]["name"] = "/".join(rng.choice(PARTS) for _ in range(rng.choice((1, 2, 3))))
    value = {"files": files}
    if rng.random() < 0.5:
        return damage_bytes(rng, canonical_json(value).encode("utf-8", "surrogatepass"))
    return json.dumps(damage_value(rng, value)).encode("utf-8", "surrogatepass")


def _fetch_artifact(data: bytes, folder: Path) -> None:
    store = open_store(str(folder / "root"))
    (folder / "made").mkdir()
    (folder / "made/a").write_text("a")
    digest = tree_manifest(folder / "made").digest
    address = store.publish("model", folder / "made")
    (folder / f"root/artifacts/model/{digest}.json").write_bytes(data)
    store.fetch(address)


DOORS = [
    Door("S3 listing", _make_listing, _copy_prefix, weight=0.5),
    Door("small record", _make_record, _read_records, weight=0.5),
    Door("artifact manifest", _make_manifest, _fetch_artifact, weight=0.5),
]
