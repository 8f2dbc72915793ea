"""What belongs to a run's identity, and what its record may hold."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataset.conftest import config_of
from vidcls_batch.config import resolved
from vidcls_batch.dataset.run_record import (
    DECIDES_RESULT,
    RunIdentity,
    RunRecord,
    decides_result,
    differences,
    flatten,
    read_run_record,
    run_identity,
    write_run_record,
)
from vidcls_batch.errors import StorageError
from vidcls_batch.storage import StorageOptions, open_store

CONFIG = config_of("/tmp/run", "/data/clips.csv")


def test_every_config_key_either_decides_the_result_or_may_change() -> None:
    keys = flatten(resolved(CONFIG))
    assert {key: decides_result(key) for key in keys}  # raises KeyError for a section without a rule
    for rule in DECIDES_RESULT:
        assert any(key == rule or key.startswith(f"{rule}.") for key in keys), f"{rule} matches no config key"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("decode.backend", True),
        ("decode.max_pixels", False),
        ("decode.timeout_s", False),
        ("members.0.checkpoint", True),
        ("ensemble.weights", True),
        ("output.unit_clips", True),
        ("output.compression", False),
        ("resources.batch_size", False),
        ("run.path", False),
        ("run.endpoint_url", False),
    ],
)
def test_which_keys_decide_the_result(key: str, expected: bool) -> None:
    assert decides_result(key) is expected


def test_the_same_manifest_by_another_path_spelling_is_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    relative = run_identity(config_of("/tmp/run", "clips.csv")).values
    assert relative == run_identity(config_of("/tmp/run", "/tmp/clips.csv")).values


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)


@given(st.dictionaries(st.text(min_size=1), json_values, max_size=5))
def test_fingerprints_depend_on_content_and_not_on_order(values: dict[str, object]) -> None:
    backwards = dict(reversed(list(values.items())))
    assert RunIdentity(values).fingerprint() == RunIdentity(backwards).fingerprint()  # type: ignore[arg-type]
    assert RunIdentity(values).fingerprint() != RunIdentity({**values, "more": 1}).fingerprint()  # type: ignore[arg-type]


def test_differences_show_old_and_new_and_shorten_what_is_long() -> None:
    lines = differences({"a": 1, "b": 2, "same": [1]}, {"b": 3, "c": "x" * 500, "same": [1]})
    assert lines[:2] == ["a: 1 → (not set)", "b: 2 → 3"]
    assert lines[2].startswith('c: (not set) → "xxx')
    assert lines[2].endswith("… (502 characters)")


def test_the_record_reads_back(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), options=StorageOptions())
    record = RunRecord(config=resolved(CONFIG), provenance={"members": [{"name": "a", "weights_sha256": "0"}]})
    write_run_record(store, record)
    assert read_run_record(store) == record
    assert '"config": {\n' in (tmp_path / "run.json").read_text()


def test_no_record_and_a_damaged_one_are_explained(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), options=StorageOptions())
    with pytest.raises(StorageError, match=r"holds no run\.json"):
        read_run_record(store)
    store.put("run.json", b"{")
    with pytest.raises(StorageError, match=r"run\.json is damaged"):
        read_run_record(store)


@pytest.mark.parametrize(
    "provenance",
    [
        {"storage": {"aws_secret_access_key": "x"}},
        {"hub_token": "x"},
        {"members": [{"password": "x"}]},
        {"proxy": "https://user:pass@example.org/"},
    ],
)
def test_a_record_never_holds_a_credential(tmp_path: Path, provenance: dict[str, object]) -> None:
    store = open_store(str(tmp_path), options=StorageOptions())
    with pytest.raises(ValueError, match="for everybody to read"):
        write_run_record(store, RunRecord(config={}, provenance=provenance))
    assert store.list() == []


def test_words_that_only_contain_token_are_fine(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), options=StorageOptions())
    write_run_record(store, RunRecord(config={}, provenance={"tokenizer": "bpe", "key": "a.b"}))
