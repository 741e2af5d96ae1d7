"""A segmenter behind a web address: fetched once, resumed where it stopped, found afterwards."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgdiffd.bundles import bundle as bundles
from imgdiffd.bundles.bundle import Bundle, load_bundle
from imgdiffd.errors import BundleError
from imgdiffd.hub import folder_of, problems
from imgdiffd.hub.direct import path_of
from imgdiffd.hub.pulling import pull
from tests.fakes.hub import FakeHub, fake_hub, use


def checkpoint() -> bytes:
    """A zip archive, as PyTorch's checkpoints are."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("weights"), bytes(range(256)) * 20)  # ZipInfo's time is fixed: 1980
    return made.getvalue()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(bundles, "_ADDRESS", re.compile(r"http://127\S+/[^/\s]+"))  # a server without a certificate
    with fake_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        hub.repositories = {"own/files": {"Any.pt": checkpoint()}}
        yield hub


@pytest.fixture
def bundle(hub: FakeHub) -> Bundle:
    return with_segmenter(f"{hub.url}/cdn/own/files/Any.pt")


def with_segmenter(source: str) -> Bundle:
    """The miniature bundle with another segmenter: all but that is here."""
    mini = load_bundle("mini")
    return mini.model_copy(update={"segmenter": bundles.SegmenterSpec.model_validate({"source": source})})


def test_a_missing_segmenter_is_fetched_once_and_found(hub: FakeHub, bundle: Bundle) -> None:
    (line,) = problems(bundle)
    assert line.startswith(f"segmenter: {bundle.segmenter.source}: not in the local cache; `imgdiffd models pull")
    said: list[str] = []
    pull(bundle, said.append)
    assert said == [f"1/1 {bundle.segmenter.source}, 0.01 MB"]
    assert problems(bundle) == []
    folder = folder_of(bundle, bundle.segmenter)
    assert folder is not None
    assert (folder / bundle.segmenter.file).read_bytes() == checkpoint()
    pull(bundle, said.append)
    assert len(said) == len(hub.fetched) == 1


def test_interrupted_transfer_resumes_where_it_stopped(hub: FakeHub, bundle: Bundle) -> None:
    partial = path_of(bundle.segmenter.source).with_name("Any.pt.incomplete")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(checkpoint()[:700])
    pull(bundle, lambda _: None)
    assert hub.fetched == ["own/files/Any.pt bytes=700-"]
    assert path_of(bundle.segmenter.source).read_bytes() == checkpoint()


def test_a_file_that_is_not_a_checkpoint_is_discarded(hub: FakeHub, bundle: Bundle) -> None:
    hub.repositories["own/files"]["Any.pt"] = b"<html>sign in</html>"
    with pytest.raises(BundleError, match=r"Any\.pt arrived damaged"):
        pull(bundle, lambda _: None)
    assert not list(path_of(bundle.segmenter.source).parent.iterdir())


def test_a_wrong_address_is_named_with_the_file_to_correct(hub: FakeHub) -> None:
    bundle = with_segmenter(f"{hub.url}/nobody/nothing/Any.pt")
    with pytest.raises(BundleError, match=r"segmenter: http.*the server answers 404.*correct it in"):
        pull(bundle, lambda _: None)


def test_only_one_file_may_be_an_address_and_it_names_the_file() -> None:
    source = "https://example.org/weights/FastSAM-x.pt"
    assert bundles.SegmenterSpec.model_validate({"source": source}).file == "FastSAM-x.pt"
    with pytest.raises(ValueError, match="must be a folder or a hub id"):
        bundles.Model(source="https://example.org/clip.zip")
    with pytest.raises(ValueError, match=r"bare name of a \.pt"):
        bundles.SegmenterSpec.model_validate({"source": "https://example.org/weights/FastSAM-x.zip"})
