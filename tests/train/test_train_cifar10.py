"""CIFAR-10 from its archive: downloaded, checked, imported; nothing of it is unpickled but arrays."""

import functools
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from m1.errors import M1Error, Reason
from m1train.data.sources import cifar10
from reading import read, refused


def test_the_address_and_the_checksum_of_cifar10_are_torchvisions() -> None:
    from torchvision.datasets import CIFAR10

    assert (CIFAR10.url, CIFAR10.tgz_md5) == (cifar10.URL, cifar10.MD5)


def cifar_archive(path: Path, images_per_batch: int = 20) -> str:
    """An archive of CIFAR-10's form with a few images in it; its MD5."""
    random = np.random.default_rng(0)
    names = [f"class{i}".encode() for i in range(10)]
    files: dict[str, object] = {"batches.meta": {b"label_names": names}}
    for batch in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        files[batch] = {
            b"data": random.integers(0, 256, (images_per_batch, 3072), dtype=np.uint8),
            b"labels": [i % 10 for i in range(images_per_batch)],
            b"filenames": [f"{i}.png".encode() for i in range(images_per_batch)],
        }
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = pickle.dumps(content, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "served" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    monkeypatch.setattr(cifar10, "MD5", cifar_archive(path))
    return path


@pytest.fixture
def server(archive: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/cifar-10-python.tar.gz"
        serving.shutdown()


def downloaded(root: Path, url: str) -> list[tuple[str, int, int]]:
    seen: list[tuple[str, int, int]] = []
    for _ in cifar10.Cifar10(root, url).samples(lambda phase, done, total: seen.append((phase, done, total))):
        pass
    assert not list(root.iterdir())
    return seen


def test_cifar10_is_downloaded_with_progress_and_checked(root: Path, archive: Path, server: str) -> None:
    seen = downloaded(root, server)
    size = archive.stat().st_size
    assert ("download", size, size) in seen
    assert sum(phase == "read" for phase, _, _ in seen) == 120


def test_a_download_with_another_checksum_is_never_opened(
    root: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "MD5", "0" * 32)
    with pytest.raises(M1Error, match="has the MD5") as raised:
        downloaded(root, server)
    assert raised.value.reason is Reason.DOWNLOAD_FAILED
    assert not list(root.iterdir())


def test_no_network_says_how_to_go_without(root: Path) -> None:
    with pytest.raises(M1Error) as raised:
        downloaded(root, "http://127.0.0.1:9/cifar-10-python.tar.gz")
    assert raised.value.reason is Reason.DOWNLOAD_FAILED
    assert raised.value.message.startswith("CIFAR-10 could not be downloaded (")
    assert "m1ctl data import cifar10 PATH" in raised.value.hint
    assert "--data digits" in raised.value.hint


def test_a_failed_download_says_whose_proxy_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9/cifar-10-python.tar.gz"
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(M1Error, match="the daemon's environment names none") as raised:
        downloaded(root, nowhere)
    assert "start the daemon with https_proxy set" in raised.value.hint
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:10")
    with pytest.raises(M1Error, match=r"by the proxy 127\.0\.0\.1:10 of the daemon's environment") as raised:
        downloaded(root, nowhere)
    assert "secret" not in str(raised.value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(M1Error, match="the daemon's environment names none"):
        downloaded(root, nowhere)


def test_what_a_server_answered_is_not_the_proxy_s_fault(root: Path, server: str) -> None:
    with pytest.raises(M1Error, match=r"\(404 File not found\)"):
        downloaded(root, server + ".not")


def test_an_archive_of_cifar10_is_imported_by_its_form(
    root: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10, "TRAIN_IMAGES", 100)
    monkeypatch.setattr(cifar10, "TEST_IMAGES", 20)
    dataset = read(root, archive, name="cifar10")
    assert (dataset.manifest.rows["train"], dataset.manifest.rows["test"]) == (100, 20)
    assert read(root, "cifar10").content_sha256 == dataset.content_sha256
    first = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)[0].reshape(3, 32, 32)
    assert np.array_equal(dataset.splits["train"]["image"][0], first.transpose(1, 2, 0))


def test_an_archive_of_cifar10_with_another_content_is_refused(root: Path, archive: Path) -> None:
    os.rename(archive, archive.with_name("other"))
    cifar_archive(archive, images_per_batch=21)
    assert "has the MD5" in refused(root, archive).message


def test_a_pickle_of_anything_but_arrays_is_refused() -> None:
    evil = pickle.dumps(os.path.join)
    with pytest.raises(pickle.UnpicklingError, match="is not part of an array"):
        cifar10._ArrayUnpickler(io.BytesIO(evil)).load()
