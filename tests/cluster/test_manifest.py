"""The manifest of a cluster run and the stores it lies in: what is begun, gone on with, and refused. Without Ray."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtformer_deploy.cluster.manifest import Entry, Failure, Identity, Manifest, listing_of, load_manifest, open_manifest, unfinished
from rtformer_deploy.cluster.stores import is_ours, is_whole, open_store
from rtformer_deploy.errors import ImageError, OutputError, UsageError
from rtformer_deploy.image.png import encode_png
from rtformer_deploy.stream.sinks import JSON_START

ENTRIES = [Entry(0, f"in/{index:02}.png", f"in/{index:02}", f"in/{index:02}.png") for index in range(20)]
IDENTITY = Identity("1.0", "a" * 64, {"alpha": 0.5, "tiles": None}, listing_of(["/in"], ENTRIES))


def begin(folder: Path, identity: Identity = IDENTITY, there: tuple[str, ...] = ()) -> Manifest:
    return open_manifest(open_store(str(folder)), identity, ["/in"], ENTRIES, lambda: there)


def test_entries_come_back_shard_by_shard(tmp_path: Path) -> None:
    manifest = begin(tmp_path, there=("in/03",))
    assert not manifest.resumed
    assert [manifest.head.size(shard) for shard in range(manifest.head.shards)] == [8, 8, 4]
    read = [entry for shard in range(3) for entry in load_manifest(open_store(str(tmp_path))).entries(shard)]
    assert read == [replace(entry, old=entry.output == "in/03") for entry in ENTRIES]


def test_a_second_start_has_to_do_what_is_missing(tmp_path: Path) -> None:
    manifest = begin(tmp_path)
    assert list(unfinished(manifest)) == [(0, 8), (1, 8), (2, 4)]
    manifest.finish(0, [])
    manifest.finish(1, [Failure(5, "in/13.png", "it is broken", "Fix it."), Failure(2, "in/10.png", "it is empty")])

    def never() -> list[str]:
        raise AssertionError("what lies there is looked at when a run begins, not later")

    again = open_manifest(open_store(str(tmp_path)), IDENTITY, ["/in"], ENTRIES, never)
    assert again.resumed
    assert list(unfinished(again)) == [(1, 2), (2, 4)]
    result = again.result(1)
    assert result is not None
    assert [failure.index for failure in result.failed] == [2, 5]
    assert result.failed[1].hint == "Fix it."


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(IDENTITY, plan_sha256="b" * 64), "the plan differs"),
        (replace(IDENTITY, package="2.0"), "the version of rtformer-deploy differs"),
        (replace(IDENTITY, listing="c" * 64), "the images differ"),
        (replace(IDENTITY, look={"alpha": 0.25, "tiles": 64}), "alpha, tiles differ"),
    ],
    ids=["plan", "version", "images", "options"],
)
def test_another_run_is_refused_by_what_differs(tmp_path: Path, other: Identity, said: str) -> None:
    begin(tmp_path)
    with pytest.raises(UsageError, match=f"holds the state of another run: {said}"):
        begin(tmp_path, other)


@pytest.mark.parametrize("wrong", ["../out", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_cannot_lead_elsewhere(tmp_path: Path, wrong: str) -> None:
    manifest = begin(tmp_path)
    path = tmp_path / ".cluster/inputs/0000000.json"
    data = json.loads(path.read_text())
    data["output"][3] = wrong
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="leads elsewhere"):
        manifest.entries(0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "entries": -1}'])
def test_a_damaged_head_is_one_message(tmp_path: Path, text: str) -> None:
    begin(tmp_path)
    (tmp_path / ".cluster/head.json").write_text(text)
    with pytest.raises(UsageError, match=r"head.json"):
        begin(tmp_path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not text"):
        open_manifest(open_store(str(tmp_path)), IDENTITY, ["/in"], [Entry(0, "a\udcff.png", "a", "a")], lambda: ())


def test_a_head_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is killed while it writes the input shards has begun nothing."""
    (tmp_path / ".cluster").mkdir()
    (tmp_path / ".cluster/inputs").write_text("in the way of the folder")
    with pytest.raises(OutputError):
        begin(tmp_path)
    assert not (tmp_path / ".cluster/head.json").exists()


def test_an_output_is_whole_to_its_last_byte(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    data = encode_png(np.zeros((9, 9), np.uint8))
    for name, content in {
        "whole.png": data, "short.png": data[:-1], "other.png": encode_png(np.zeros((9, 9), np.uint8), mark=False),
        "a_polygons.geojson": JSON_START.encode() + b'"features": [\n]}\n', "b_polygons.geojson": JSON_START.encode() + b'"features": [',
    }.items():  # fmt: skip
        store.write(name, content)
    assert [name for name in store.names() if is_whole(store, name)] == ["a_polygons.geojson", "whole.png"]
    assert [name for name in store.names() if not is_ours(store, name)] == ["other.png"]
    assert not is_whole(store, "missing.png")


def test_a_folder_is_read_and_written_by_names(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "new"))
    assert store.names() == []
    store.write("a/b.png", b"1234")
    assert store.names() == ["a/b.png"]
    assert store.read("a/b.png", ImageError, "an image") == b"1234"
    with pytest.raises(ImageError, match="too large to be an image"):
        store.read("a/b.png", ImageError, "an image", 3)
    store.remove("a/b.png")
    store.remove("a/b.png")
    assert store.ends("a/b.png") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [("s3://", "names no bucket"), ("s3://me:secret@b/p", "carries credentials"), ("s3://b/p?access_key=secret", "carries credentials")],
)
def test_an_address_that_is_none_is_refused_and_shows_no_secret(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        open_store(text)
    assert "secret" not in str(error.value)


class Refusing:
    """Stands for a store of objects that refuses everything, as pyarrow tells it."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def open_output_stream(self, path: str) -> object:
        raise OSError(f"When initiating multiple part upload for key '{path}': {self._reason}")

    open_input_file = open_output_stream


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("AWS Error ACCESS_DENIED during PutObject operation: Access Denied", "the store does not allow it"),
        ("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: gone", "there is no such bucket"),
        ("AWS Error INVALID_ACCESS_KEY_ID during HeadObject operation", "the store does not know these credentials"),
        ("AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7", "the store does not answer"),
        ("something that nobody has seen yet", "something that nobody has seen yet"),
    ],
)
def test_a_store_that_refuses_is_one_message_and_what_to_do(monkeypatch: pytest.MonkeyPatch, reason: str, said: str) -> None:
    monkeypatch.setattr("rtformer_deploy.cluster.stores.require", lambda *names: None)
    monkeypatch.setattr("rtformer_deploy.cluster.stores._file_system", lambda text: (Refusing(reason), "bucket/out"))
    store = open_store("s3://bucket/out?endpoint_override=secret-host")
    with pytest.raises(OutputError, match=said) as error:
        store.write("a.png", b"1")
    assert "s3://bucket/out/a.png" in error.value.what
    assert "secret-host" not in str(error.value)
    assert (error.value.hint is None) == reason.startswith("something")
    with pytest.raises(ImageError, match=said):
        store.read("a.png", ImageError, "an image")
