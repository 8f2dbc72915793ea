import json
from pathlib import Path

import pytest
import yaml

from vidcls_batch.config import config_json_schema, load_config, parse_config, resolved
from vidcls_batch.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"
MINIMAL = {
    "run": "out/run1",
    "manifest": "clips.csv",
    "label_set": ["left", "right"],
    "members": [{"name": "a", "family": "videomae", "checkpoint": "x"}],
}


def write(tmp_path: Path, tree: object) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_short_forms_of_run_manifest_and_label_set_are_understood():
    config = parse_config(MINIMAL)
    assert config.run.path == "out/run1"
    assert config.manifest.path == "clips.csv"
    assert config.label_set.labels == ("left", "right")
    assert parse_config(MINIMAL | {"label_set": "kinetics400"}).label_set.name == "kinetics400"
    assert parse_config(MINIMAL | {"label_set": "my/labels.txt"}).label_set.file == "my/labels.txt"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"resorces": {}}, "resorces: unknown key. Did you mean 'resources'?"),
        ({"decode": {"time_out_s": 3}}, "decode.time_out_s: unknown key. Did you mean 'timeout_s'?"),
        ({"members": [{"name": "a", "family": "v", "checkpoint": "x", "smapling": {}}]}, "Did you mean 'sampling'?"),
        ({"members": []}, "at least 1 item"),
        ({"members": MINIMAL["members"] * 2}, "the name 'a' is used twice"),
        ({"members": [{"name": "A b", "family": "v", "checkpoint": "x"}]}, "members.0.name"),
        ({"ensemble": {"weights": {"b": 1.0}}}, "'b' is no member"),
        ({"ensemble": {"weights": {"a": 0.0}}}, "all weights are 0"),
        ({"ensemble": {"weights": {"a": -1.0}}}, "finite number >= 0"),
        ({"ensemble": {"label_weights": {"b": {"left": 1.0}}}}, "ensemble.label_weights: 'b' is no member"),
        ({"ensemble": {"label_weights": {"a": {"left": -1}}}}, "weight of 'a' for 'left' is -1.0; it must be finite"),
        ({"members": [MINIMAL["members"][0] | {"prompts": []}]}, "at least one template"),
        ({"members": [MINIMAL["members"][0] | {"negative_prompts": ["a {}"]}]}, "negative_prompts"),
        ({"decode": {"timeout_s": 0}}, "greater than 0 (got 0)"),
        ({"label_set": {"name": "kinetics400", "file": "x.txt"}}, "exactly one of name, file, labels"),
        ({"members": [MINIMAL["members"][0] | {"prompts": ["a video"]}]}, "exactly one {}"),
        ({"run": {"path": "out", "storage_options": {"secret": "x"}}}, "looks like a credential"),
        ({"resources": {"groups": [["a"], ["b"]]}}, "resources.groups: 'b' is no member"),
        ({"resources": {"groups": [["a"], ["a"]]}}, "member 'a' is listed twice"),
        ({"resources": {"groups": []}}, "resources.groups leaves out a"),
        ({"resources": {"groups": [{"member": ["a"]}]}}, "resources.groups"),
    ],
)
def test_wrong_config_is_refused_with_the_remedy(change, expected):
    with pytest.raises(ConfigError) as failure:
        parse_config(MINIMAL | change)
    assert expected in str(failure.value)


def test_groups_of_members_are_names_or_names_with_a_pool_size():
    members = [MINIMAL["members"][0] | {"name": name} for name in "abc"]
    tree = MINIMAL | {"members": members, "resources": {"groups": [["a", "c"], {"members": ["b"], "actors": 3}]}}
    first, second = parse_config(tree).resources.groups
    assert (first.members, first.actors) == (("a", "c"), None)
    assert (second.members, second.actors) == (("b",), 3)
    pytest.importorskip("jsonschema").validate(tree, config_json_schema())
    assert parse_config(MINIMAL | {"resources": {"groups": "auto"}}).resources.groups == "auto"
    cascade = {"cascade": {"first": ["b"], "margin": 0.5}}
    with pytest.raises(ConfigError, match=r"cascade asks b first, so resources\.groups must"):
        parse_config(tree | {"ensemble": cascade})


def test_every_wrong_key_is_told_at_once():
    with pytest.raises(ConfigError) as failure:
        parse_config(MINIMAL | {"resorces": {}, "decode": {"time_out_s": 3}})
    assert "resorces" in str(failure.value)
    assert "time_out_s" in str(failure.value)


def test_overrides_reach_list_items_and_short_forms(tmp_path):
    path = write(tmp_path, MINIMAL)
    config = load_config(
        path, overrides=["members.0.precision=bf16", "run.endpoint_url=http://127.0.0.1:9000", "ensemble.top_k=2"]
    )
    assert config.members[0].precision == "bf16"
    assert (config.run.path, config.run.endpoint_url) == ("out/run1", "http://127.0.0.1:9000")
    assert config.ensemble.top_k == 2


@pytest.mark.parametrize("override", ["members.7.precision=bf16", "no_equals_sign", "=1", "decode.timeout_s=[1"])
def test_override_that_cannot_be_applied_is_refused(tmp_path, override):
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, MINIMAL), overrides=[override])


def test_resolved_config_is_plain_json_and_parses_to_the_same_config():
    config = parse_config(MINIMAL)
    assert parse_config(resolved(config)) == config


def test_config_is_frozen():
    config = parse_config(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        config.decode.timeout_s = 1.0


@pytest.mark.parametrize("text", ["- a list", "a: [", ""])
def test_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path)


def test_missing_config_file_says_where_ready_ones_are(tmp_path):
    with pytest.raises(ConfigError, match=r"configs/"):
        load_config(tmp_path / "none.yaml")


def test_json_schema_accepts_what_the_parser_accepts():
    jsonschema = pytest.importorskip("jsonschema")
    schema = config_json_schema()
    jsonschema.validate(MINIMAL, schema)
    jsonschema.validate(resolved(parse_config(MINIMAL)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(MINIMAL | {"resorces": {}}, schema)


def test_schema_file_for_editors_is_what_the_code_says():
    """Rebuild it with: vidcls config-schema > configs/config.schema.json"""
    assert json.loads((CONFIGS / "config.schema.json").read_text()) == config_json_schema()


def test_a_members_labels_have_the_short_forms_too():
    jsonschema = pytest.importorskip("jsonschema")
    for short, whole in (
        (["a", "b"], {"labels": ["a", "b"]}),
        ("kinetics400", {"name": "kinetics400"}),
        ("mine/labels.txt", {"file": "mine/labels.txt"}),
    ):
        trees = [MINIMAL | {"members": [MINIMAL["members"][0] | {"labels": labels}]} for labels in (short, whole)]
        assert parse_config(trees[0]) == parse_config(trees[1])
        jsonschema.validate(trees[0], config_json_schema())


def test_the_only_member_being_wrong_is_not_told_as_too_few_members():
    with pytest.raises(ConfigError) as told:
        parse_config(MINIMAL | {"members": [MINIMAL["members"][0] | {"famly": "x"}]})
    assert "famly: unknown key" in str(told.value)
    assert "at least 1 item" not in str(told.value)
    with pytest.raises(ConfigError, match="at least 1 item"):
        parse_config(MINIMAL | {"members": []})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_are_valid(path):
    load_config(path)
