"""Manifests: five formats give the same clips; what cannot be labeled is refused with row numbers and the next step."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.s3 import S3Server
from vidcls_batch.config import ManifestConfig
from vidcls_batch.dataset import clip_ids, manifest
from vidcls_batch.dataset.clip_ids import derive_clip_ids
from vidcls_batch.dataset.listing import list_videos, write_manifest
from vidcls_batch.dataset.manifest import check_manifest, read_clips, read_header
from vidcls_batch.dataset.manifest_source import open_manifest
from vidcls_batch.errors import ManifestError
from vidcls_batch.storage import StorageOptions, open_store, read_object

LOCAL = StorageOptions()


def read(
    path: str | Path, *, options: StorageOptions = LOCAL, reserved: tuple[str, ...] = (), **config: Any
) -> pa.Table:
    """Check the manifest and read it whole."""
    with open_manifest(ManifestConfig(path=str(path), **config), options=options) as source:
        manifest = read_header(source, ManifestConfig(path="x", **config).columns, reserved=frozenset(reserved))
        num_rows = check_manifest(manifest)
        table = pa.Table.from_batches(read_clips(manifest), manifest.schema)
    assert table.num_rows == num_rows
    return table


def refusal(path: str | Path, **kwargs: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        read(path, **kwargs)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


CLIPS = {
    "clip_id": ["a", "b", "007"],
    "uri": ["/v/a.mp4", "s3://b/b.mp4", "/v/c.mp4"],
    "start_s": [0.0, None, 2.5],
    "end_s": [10.0, None, None],
    "caption": ["x, y", None, "z"],
    "year": [2019, None, 2021],
}
CSV = 'clip_id,uri,start_s,end_s,caption,year\na,/v/a.mp4,0,10,"x, y",2019\nb,s3://b/b.mp4,,,,\n007,/v/c.mp4,2.5,,z,2021\n'


def as_jsonl(columns: dict[str, list[Any]]) -> str:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return "".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows)


def test_parquet_csv_and_jsonl_give_the_same_clips(tmp_path: Path) -> None:
    pq.write_table(pa.table(CLIPS), tmp_path / "m.parquet")
    tables = [
        read(tmp_path / "m.parquet"),
        read(write(tmp_path / "m.csv", CSV)),
        read(write(tmp_path / "m.jsonl", as_jsonl(CLIPS))),
        read(write(tmp_path / "m.tsv", "clip_id\turi\na\t/v/a.mp4\n")).select(["clip_id"]),
    ]
    for table in tables[:3]:
        assert table.equals(tables[0])
        assert table.schema.types[:4] == [pa.string(), pa.string(), pa.float64(), pa.float64()]
    assert tables[0].to_pydict() == CLIPS
    assert tables[3].to_pydict() == {"clip_id": ["a"]}


def test_compressed_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(as_jsonl(CLIPS).encode()))
    assert read(tmp_path / "m.csv.gz").to_pydict() == CLIPS
    assert read(tmp_path / "m.jsonl.gz").to_pydict() == CLIPS


def test_text_of_uris(tmp_path: Path) -> None:
    table = read(write(tmp_path / "m.txt", "\ufeff/v/a.mp4\n\n  s3://b/c.mp4 \r\nrelative/d.mp4"))
    assert table["uri"].to_pylist() == ["/v/a.mp4", "s3://b/c.mp4", f"{tmp_path}/relative/d.mp4"]
    assert table["clip_id"].to_pylist() == derive_clip_ids(table["uri"].combine_chunks()).to_pylist()


def test_relative_paths_are_taken_from_the_manifests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m.csv", "uri\nclips/a.mp4\n../b.mp4\n/abs/c.mp4\nhttps://x/d.mp4\n~/e.mp4\n")
    monkeypatch.chdir(tmp_path.parent)
    assert read(f"{tmp_path.name}/m.csv")["uri"].to_pylist() == [
        f"{tmp_path}/clips/a.mp4",
        f"{tmp_path}/../b.mp4",
        "/abs/c.mp4",
        "https://x/d.mp4",
        "~/e.mp4",
    ]


def test_a_folder_of_parquet_files_is_one_manifest(tmp_path: Path) -> None:
    for number, ids in enumerate((["a", "b"], ["c"])):
        pq.write_table(
            pa.table({"clip_id": ids, "uri": [f"{i}.mp4" for i in ids]}), tmp_path / f"part-{number}.parquet"
        )
    write(tmp_path / "_SUCCESS", "")
    table = read(tmp_path)
    assert table["clip_id"].to_pylist() == ["a", "b", "c"]
    assert table["uri"][0].as_py() == f"{tmp_path}/a.mp4"
    pq.write_table(pa.table({"uri": ["d.mp4"], "more": [1]}), tmp_path / "part-2.parquet")
    assert "part-2.parquet has other columns or types than part-0.parquet" in refusal(tmp_path)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("b/2.mp4", "b/1.MKV", "a.webm", "notes.txt", "b/deep/3.mov", ".hidden/4.mp4", "b/._5.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path / "videos"


def test_a_folder_of_videos_is_a_manifest_without_hidden_and_other_files(videos: Path) -> None:
    expected = [f"{videos}/{n}" for n in ("a.webm", "b/1.MKV", "b/2.mp4", "b/deep/3.mov")]
    assert read(videos)["uri"].to_pylist() == expected
    assert [(u, n) for u, n in list_videos(str(videos), options=LOCAL)] == [(u, 5) for u in expected]
    assert read(videos)["clip_id"].to_pylist() == derive_clip_ids(pa.array(expected)).to_pylist()


def test_a_glob_takes_what_it_matches_whatever_the_extension(videos: Path) -> None:
    assert read(f"{videos}/**/*.mp4")["uri"].to_pylist() == [f"{videos}/b/2.mp4"]
    assert read(f"{videos}/*.txt")["uri"].to_pylist() == [f"{videos}/notes.txt"]
    assert read(f"{videos}/b/*")["uri"].to_pylist() == [f"{videos}/b/1.MKV", f"{videos}/b/2.mp4"]
    assert "has no rows" in refusal(f"{videos}/**/*.nothing")


def test_manifests_folders_and_globs_on_s3(s3_server: S3Server) -> None:
    options = StorageOptions(endpoint_url=s3_server.endpoint_url)
    store = open_store(s3_server.uri, options=options)
    for name in ("data/x/1.mp4", "data/x/2.mp4", "data/readme.md", "database/3.mp4"):
        store.put(name, b"video")
    store.put("data/clips.csv", b"uri,caption\nx/1.mp4,one\nx/2.mp4,two\n")
    uris = [f"{s3_server.uri}/data/x/{n}.mp4" for n in (1, 2)]
    assert read(f"{s3_server.uri}/data/clips.csv", options=options)["uri"].to_pylist() == uris
    assert read(f"{s3_server.uri}/data", options=options)["uri"].to_pylist() == uris
    assert read(f"{s3_server.uri}/data/**/*.mp4", options=options)["uri"].to_pylist() == uris
    assert write_manifest(f"{s3_server.uri}/data", f"{s3_server.uri}/lists/a.parquet", options=options) == 2
    assert read(f"{s3_server.uri}/lists/a.parquet", options=options)["uri"].to_pylist() == uris
    assert "No manifest at s3://" in refusal(f"{s3_server.uri}/data/none.csv", options=options)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "txt"])
def test_a_written_manifest_reads_back_with_the_same_ids(videos: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "out" / f"clips.{suffix}"
    assert write_manifest(str(videos), str(out), options=LOCAL) == 4
    assert read(out).equals(read(videos))


def test_a_manifest_is_not_written_for_nothing_or_in_an_unknown_format(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"use \.parquet, \.csv, \.jsonl, \.txt"):
        write_manifest(str(videos), str(tmp_path / "x.xlsx"), options=LOCAL)
    with pytest.raises(ManifestError, match="No videos below"):
        write_manifest(f"{videos}/*.avi", str(tmp_path / "x.csv"), options=LOCAL)
    with pytest.raises(ManifestError, match="No folder"):
        write_manifest(f"{videos}/nowhere", str(tmp_path / "x.csv"), options=LOCAL)
    assert not (tmp_path / "x.csv").exists()


def test_derived_ids_tell_parts_of_one_file_apart_and_never_change(tmp_path: Path) -> None:
    text = "uri,start_s,end_s\n/v/a.mp4,,\n/v/a.mp4,0,5\n/v/a.mp4,5,10.5\n"
    ids = read(write(tmp_path / "m.csv", text))["clip_id"].to_pylist()
    assert ids == ["5b47998c8a39f3539b9c", "8138a5a94c3789d748b7", "d6a0779ea343481a292b"]
    assert read(write(tmp_path / "n.csv", text))["clip_id"].to_pylist() == ids


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "path,key,from,to,uri_note\n/v/a.mp4,k1,1,2,n\n")
    columns = {"uri": "path", "clip_id": "key", "start_s": "from", "end_s": "to"}
    assert read(path, columns=columns).to_pylist() == [
        {"clip_id": "k1", "uri": "/v/a.mp4", "start_s": 1.0, "end_s": 2.0, "uri_note": "n"}
    ]


def test_extra_columns_keep_their_types_and_nulls(tmp_path: Path) -> None:
    extras = {
        "small": pa.array([1, None, 3], pa.int8()),
        "when": pa.array([1, 2, None], pa.timestamp("us", tz="UTC")),
        "tags": pa.array([["x"], None, []], pa.list_(pa.string())),
        "kind": pa.array(["u", "v", None]).dictionary_encode(),
        "box": pa.array([{"w": 1}, None, {"w": None}]),
        "blank": pa.nulls(3),
    }
    pq.write_table(pa.table({"uri": ["/1", "/2", "/3"], **extras}), tmp_path / "m.parquet")
    table = read(tmp_path / "m.parquet")
    for name, column in extras.items():
        assert table[name].to_pylist() == column.to_pylist()
        assert table.schema.field(name).type == (pa.string() if name == "blank" else column.type)


def test_csv_columns_are_numbers_only_when_all_values_are(tmp_path: Path) -> None:
    text = (
        "uri,count,ratio,flag,zip,big,mixed,late\n/1,1,0.5,true,00123,12345678901234567890,1,\n"
        "/2,,1,false,4,1,x,\n/3,3,1e3,,5,2,2,2.5\n"
    )
    table = read(write(tmp_path / "m.csv", text))
    types = {name: str(table.schema.field(name).type) for name in table.column_names[4:]}
    assert types == {
        "count": "int64", "ratio": "double", "flag": "bool", "zip": "string", "big": "string", "mixed": "string",
        "late": "double",
    }  # fmt: skip
    assert table["zip"][0].as_py() == "00123"


def test_a_csv_type_is_decided_by_the_last_row_too(tmp_path: Path) -> None:
    rows = "".join(f"/v/{i}.mp4,{i},{'x' * 90}\n" for i in range(100_000))
    table = read(write(tmp_path / "m.csv", f"uri,number,text\n{rows}/v/last.mp4,seven,y\n"))
    assert table.schema.field("number").type == pa.string()
    assert table["number"][-1].as_py() == "seven"


def test_jsonl_strings_that_look_like_times_stay_text_and_late_columns_appear(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"uri": f"/v/{i}.mp4", "n": i, "pad": "x" * 90}) + "\n" for i in range(100_000))
    last = json.dumps({"uri": "/v/last.mp4", "n": 0.5, "day": "2024-01-02", "meta": {"at": "2024-01-02"}})
    table = read(write(tmp_path / "m.jsonl", rows + last))
    assert str(table.schema.field("n").type) == "double"
    assert table["day"].to_pylist()[-2:] == [None, "2024-01-02"]
    assert table["meta"][-1].as_py() == {"at": "2024-01-02"}


def test_a_quoted_newline_in_a_csv_field_stays_one_row(tmp_path: Path) -> None:
    table = read(write(tmp_path / "m.csv", 'uri,caption\n/1,"two\nlines"\n/2,one\n'))
    assert table["caption"].to_pylist() == ["two\nlines", "one"]


def test_whole_number_ids_become_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"clip_id": [7, 8], "uri": ["/1", "/2"]}), tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet")["clip_id"].to_pylist() == ["7", "8"]


# --- refusals ---


def test_all_bad_rows_are_told_at_once_with_their_numbers(tmp_path: Path) -> None:
    text = (
        "clip_id,uri,start_s,end_s\na,/1,,\n,/2,,\nc,,,\nd,   ,,\ne,/5,nan,\nf,/6,-1,\ng,/7,5,5\nh,/8,5,4\n"
        "i,/9,,inf\nj,/10,soon,\nk,/11,,0\n"
    )
    message = refusal(write(tmp_path / "m.csv", text))
    for line in (
        "row 2: the clip id is empty",
        "2 rows (3, 4): the uri is empty; fill it in or drop the row",
        "2 rows (5, 6): start_s is not a finite number >= 0",
        "row 9: end_s is not a finite number >= 0",
        "3 rows (7, 8, 11): end_s is not after start_s",
        "row 10: start_s is not a number of seconds",
    ):
        assert line in message


def test_bad_rows_are_numbered_across_batches_and_files(tmp_path: Path) -> None:
    for number, rows in enumerate((70_000, 70_000)):
        uris = [f"/v/{number}-{i}.mp4" for i in range(rows)]
        uris[-1] = ""
        pq.write_table(pa.table({"uri": uris}), tmp_path / f"p{number}.parquet")
    assert "2 rows (70000, 140000): the uri is empty" in refusal(tmp_path)


def test_only_the_first_few_bad_rows_are_listed(tmp_path: Path) -> None:
    assert "1000 rows (1, 2, 3, 4, 5, …): the uri is empty" in refusal(
        write(tmp_path / "m.csv", "uri,x\n" + ",1\n" * 1000)
    )


def test_duplicate_ids_are_refused_with_both_rows(tmp_path: Path) -> None:
    rows = "".join(f"id{i},/v/{i}.mp4\n" for i in range(100_000))
    message = refusal(write(tmp_path / "m.csv", f"clip_id,uri\n{rows}id7,/v/x.mp4\nid99999,/v/y.mp4\n"))
    assert "clip ids occur more than once; 2 rows are too many (rows 8 and 100001: 'id7'; " in message
    assert "drop or rename" in message


def test_the_same_clip_twice_is_refused_also_without_ids(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "m.csv", "uri,start_s,end_s\n/a,0,1\n/a,1,2\n/a,0,1\n"))
    assert "the same uri, start_s and end_s" in message
    assert "rows 1 and 3: '/a'" in message


def test_hashes_that_collide_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_equal(strings: pa.Array) -> Any:
        return np.zeros(len(strings), np.uint64)

    monkeypatch.setattr(clip_ids, "hash_strings", all_equal)
    monkeypatch.setattr(manifest, "hash_strings", all_equal)
    path = write(tmp_path / "m.csv", "clip_id,uri\n" + "".join(f"{i},/{i}\n" for i in range(50)))
    assert read(path).num_rows == 50
    path.write_text(path.read_text() + "3,/again\n")
    assert "rows 4 and 51: '3'" in refusal(path)


def test_a_missing_uri_column_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert "Did you mean manifest.columns.uri=urii?" in refusal(write(tmp_path / "a.csv", "urii,x\n/1,2\n"))
    assert "Did you mean manifest.columns.uri=video_path?" in refusal(write(tmp_path / "b.csv", "video_path,x\n/1,2\n"))
    message = refusal(write(tmp_path / "c.csv", "uri\n/1\n"), columns={"clip_id": "key"})
    assert "has no column 'key' (clip_id of the clips). Its columns: ['uri']" in message


def test_columns_named_like_the_outputs_own_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "uri,label,score,note\n/1,a,1,n\n")
    assert "columns ['label', 'score'] are named like columns of the output" in refusal(
        path, reserved=("label", "score", "status")
    )
    message = refusal(write(tmp_path / "n.csv", "path,uri\n/1,2\n"), columns={"uri": "path"})
    assert "['uri'] are named like columns of the output" in message


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    assert "columns ['x'] occur more than once" in refusal(write(tmp_path / "m.csv", "uri,x,x\n/1,2,3\n"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.csv", b"", "is empty"),
        ("m.csv", b"uri\n", "has no rows"),
        ("m.txt", b"\n\n", "has no rows"),
        ("m.jsonl", b"", "has no column 'uri'"),
        ("m.parquet", b"not parquet at all", "cannot be read as parquet"),
        ("m.parquet", b"", "cannot be read as parquet"),
        ("m.csv", b"uri,x\n/1,2\n/2,3,4\n/3\n", "2 rows do not have the header's number of fields (row 2 has 3 fields"),
        ("m.csv", b"uri\n/1\n\xff\xfe/2\n", "cannot be read as csv: "),
        ("m.jsonl", b'{"uri": "/1"}\n{"uri": \n', "row 2 is not JSON"),
        ("m.jsonl", b'{"uri": "/1"}\n["/2"]\n', "row 2 is not a JSON object"),
        (
            "m.jsonl",
            b'{"uri": "/1", "n": 1}\n{"uri": "/2", "n": "x"}\n',
            "changes its type within rows 1 to 2",
        ),
        ("m.jsonl", b'{"uri": 5}\n', "the column 'uri' holds int64, not text"),
        ("m.dat", b"uri\n/1\n", "Cannot tell the format of the manifest"),
        ("m.csv.gz", b"no gzip", "cannot be read as csv"),
    ],
)
def test_unreadable_manifests_are_refused(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in refusal(tmp_path / name)


def test_a_column_of_times_that_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["/1"], "start_s": [True]}), tmp_path / "m.parquet")
    assert "column 'start_s' holds bool, not seconds" in refusal(tmp_path / "m.parquet")


def test_a_manifest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "Correct manifest.path" in refusal(tmp_path / "none.csv")


def test_a_truncated_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [f"/{i}" for i in range(1000)]}), tmp_path / "m.parquet")
    data = (tmp_path / "m.parquet").read_bytes()
    (tmp_path / "m.parquet").write_bytes(data[: len(data) // 2])
    assert "cannot be read as parquet" in refusal(tmp_path / "m.parquet")


def test_the_manifest_itself_is_never_touched(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", CSV)
    read(path)
    assert read_object(str(path), options=LOCAL).decode() == CSV
    assert list(tmp_path.iterdir()) == [path]
