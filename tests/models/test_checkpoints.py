import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import fsspec
import pytest
import torch
from contracts.tiny_checkpoints import LABELS, save_processor, timesformer, videomae, xclip
from safetensors.torch import load_file, save_file

from vidcls_batch.config import MemberConfig, SamplingConfig
from vidcls_batch.errors import CheckpointError, ConfigError
from vidcls_batch.models.checkpoints import CheckpointAccess, open_checkpoint
from vidcls_batch.models.registry import describe_member, load_member, pinned


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videomae(tmp_path_factory.mktemp("saved")).path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "videomae"))


def member(checkpoint: object, **changes: object) -> MemberConfig:
    return MemberConfig(**({"name": "m", "family": "videomae", "checkpoint": str(checkpoint)} | changes))


def load(checkpoint: object, **changes: object) -> object:
    return load_member(member(checkpoint, **changes), labels=LABELS, device="cpu")


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in changes.items():
        if tensor is None:
            del tensors[key]
        else:
            tensors[key] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_without_a_head_is_refused_by_the_names_of_its_keys(folder: Path) -> None:
    edit_weights(folder, **{"classifier.weight": None, "classifier.bias": None})
    with pytest.raises(CheckpointError, match=r"2 keys missing \(classifier.bias, classifier.weight\)"):
        load(folder)


def test_keys_the_network_does_not_know_are_refused_by_name(folder: Path) -> None:
    edit_weights(folder, **{"decoder.head.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"1 key unexpected \(decoder.head.weight\)"):
        load(folder)


def test_a_head_of_another_size_is_refused_by_name(folder: Path) -> None:
    edit_weights(folder, **{"classifier.bias": torch.zeros(7)})
    with pytest.raises(CheckpointError, match=r"of another shape \(classifier.bias \[7\] for \[3\]\)"):
        load(folder)


def test_buffers_that_old_versions_saved_are_no_reason_to_refuse(tmp_path: Path) -> None:
    folder = xclip(tmp_path).path
    edit_weights(folder, **{"text_model.embeddings.position_ids": torch.arange(40)[None]})
    load(folder, family="xclip")


def test_damaged_weights_are_a_checkpoint_error(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load it"):
        load(folder)


def test_pickled_weights_load_without_running_code(folder: Path, tmp_path: Path) -> None:
    expected = load(folder).record
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert load(folder).record.num_parameters == expected.num_parameters

    torch.save({"classifier.weight": RunsOnLoad(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        load(folder)
    assert not (tmp_path / "ran").exists()


class RunsOnLoad:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_another_familys_checkpoint_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is a 'videomae' model, but its member's family needs 'timesformer'"):
        load(folder, family="timesformer")


def test_a_head_without_names_needs_them_from_the_config(folder: Path) -> None:
    filler = {str(i): f"LABEL_{i}" for i in range(3)}
    edit_config(folder, id2label=filler)
    with pytest.raises(CheckpointError, match=r"does not name its head's 3 outputs.*members\.m\.labels"):
        describe_member(member(folder), labels=LABELS)
    assert describe_member(member(folder, labels={"labels": LABELS}), labels=LABELS).labels == LABELS


def test_a_wrong_number_of_label_names_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has 2 names, but the head of .* has 3 outputs"):
        describe_member(member(folder, labels={"labels": ["a", "b"]}), labels=LABELS)


def test_another_number_of_frames_is_refused_before_loading(tmp_path: Path) -> None:
    folder = timesformer(tmp_path).path  # the network itself would take any number without a word
    with pytest.raises(
        ConfigError, match=r"members\.m: sampling\.num_frames is 8, but this checkpoint takes exactly 4"
    ):
        describe_member(member(folder, family="timesformer", sampling=SamplingConfig(num_frames=8)), labels=LABELS)


def test_prompts_for_a_trained_head_and_labels_for_a_zero_shot_member_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a trained head and reads no prompts"):
        describe_member(member(folder, prompts=("a {}",)), labels=LABELS)
    (tmp_path / "x").mkdir()
    zero_shot = xclip(tmp_path / "x").path
    with pytest.raises(ConfigError, match="is zero-shot and scores the run's label_set"):
        describe_member(member(zero_shot, family="xclip", labels={"labels": LABELS}), labels=LABELS)


def test_an_unknown_family_is_refused_with_a_suggestion(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown model family 'vidmae'. Did you mean 'videomae'\?"):
        describe_member(member(folder, family="vidmae"), labels=LABELS)


def test_a_missing_folder_and_an_unreachable_hub_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="no such folder or file, and it is no hub id"):
        describe_member(member("./models/nothing/here"), labels=LABELS)
    with pytest.raises(CheckpointError, match=r"Cannot get 'nobody/videomae'.*no local folder of that name"):
        describe_member(member("nobody/videomae"), labels=LABELS)


def test_a_cached_hub_checkpoint_is_used_at_its_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, saved: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--MCG-NJU--videomae-tiny"
    shutil.copytree(saved, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = member("MCG-NJU/videomae-tiny")
    description = describe_member(config, labels=LABELS)
    assert (description.revision, description.licence) == (commit, "CC-BY-NC-4.0")
    assert pinned(config, description).revision == commit
    assert load(config.checkpoint).record.revision == commit


def test_the_licence_of_the_model_card_is_recorded(folder: Path) -> None:
    assert describe_member(member(folder), labels=LABELS).licence is None
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: [video]\n---\n# A model\n")
    assert describe_member(member(folder), labels=LABELS).licence == "apache-2.0"


def upload(folder: Path, uri: str, *, only: str = "*") -> None:
    fs, root = fsspec.core.url_to_fs(uri)
    for path in folder.glob(only):
        fs.pipe_file(f"{root}/{path.name}", path.read_bytes())


def test_a_checkpoint_behind_a_uri_is_described_without_its_weights(saved: Path, tmp_path: Path) -> None:
    upload(saved, "memory://models/v", only="*.json")
    access = CheckpointAccess(cache_dir=tmp_path)
    description = describe_member(member("memory://models/v"), labels=LABELS, access=access)
    assert description.labels == LABELS
    with pytest.raises(CheckpointError, match="has no weights"):
        load_member(member("memory://models/v"), labels=LABELS, device="cpu", access=access)


def test_a_changed_object_is_fetched_anew_and_an_unchanged_one_is_not(saved: Path, tmp_path: Path) -> None:
    upload(saved, "memory://models/v")
    access = CheckpointAccess(cache_dir=tmp_path)
    first = open_checkpoint("memory://models/v", access=access)
    (first.path / "marker").touch()
    assert (open_checkpoint("memory://models/v", access=access).path / "marker").exists()
    fsspec.filesystem("memory").pipe_file("/models/v/config.json", b"{}  ")
    again = open_checkpoint("memory://models/v", access=access)
    assert again.revision != first.revision
    assert not (again.path / "marker").exists()


def test_a_download_that_fails_leaves_nothing_behind(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(saved, "memory://models/v")

    def fail(*_: object, **__: object) -> None:
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.memory.MemoryFileSystem.get_file", fail)
        with pytest.raises(CheckpointError, match=r"memory://models/v.*connection reset"):
            open_checkpoint("memory://models/v", access=CheckpointAccess(cache_dir=tmp_path))
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
    assert open_checkpoint("memory://models/v", access=CheckpointAccess(cache_dir=tmp_path)).weight_files()


def test_a_missing_uri_is_a_checkpoint_error(tmp_path: Path) -> None:
    access = CheckpointAccess(cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match="memory://nothing"):
        open_checkpoint("memory://nothing/here", access=access)
    with pytest.raises(CheckpointError, match="nosuch://x"):
        open_checkpoint("nosuch://x/y", access=access)


FETCH_AND_HASH = """
import sys
from pathlib import Path
from vidcls_batch.models.checkpoints import CheckpointAccess, open_checkpoint
from vidcls_batch.storage import StorageOptions

uri, cache, endpoint = sys.argv[1:]
access = CheckpointAccess(storage=StorageOptions(endpoint_url=endpoint), cache_dir=Path(cache))
print(open_checkpoint(uri, access=access).weights_sha256())
"""


def test_processes_that_ask_at_once_share_one_download_from_s3(saved: Path, tmp_path: Path, s3_server: object) -> None:
    uri = f"{s3_server.uri}/models/videomae"
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    for path in saved.iterdir():
        client.upload_file(str(path), s3_server.bucket, f"models/videomae/{path.name}")
    command = [sys.executable, "-c", FETCH_AND_HASH, uri, str(tmp_path), s3_server.endpoint_url]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    hashes = {worker.communicate(timeout=120)[0].strip() for worker in workers}
    assert hashes == {open_checkpoint(str(saved)).weights_sha256()}
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1


def test_threads_that_ask_at_once_share_one_download(saved: Path, tmp_path: Path) -> None:
    upload(saved, "memory://models/v")
    access = CheckpointAccess(cache_dir=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(lambda _: open_checkpoint("memory://models/v", access=access).path, range(8)))
    assert len(set(copies)) == 1
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1


def test_checkpoint_without_a_config_is_refused(tmp_path: Path) -> None:
    save_processor(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        describe_member(member(tmp_path), labels=LABELS)
