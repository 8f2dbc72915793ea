import pytest

from vidcls_batch.config import LabelSetConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.label_sets import built_in_label_sets, load_label_set

SIZES = {"kinetics400": 400, "kinetics600": 600, "kinetics700": 700, "sthv2": 174, "ucf101": 101, "hmdb51": 51}


def source(**given: object) -> LabelSetConfig:
    return LabelSetConfig.model_validate(given)


@pytest.mark.parametrize("name", built_in_label_sets())
def test_built_in_label_set_loads_with_distinct_names(name):
    labels = load_label_set(source(name=name)).labels
    assert len(set(labels)) == len(labels) == SIZES.get(name, len(labels))


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'kinetics400'"):
        load_label_set(source(name="kinetic400"))


def test_text_and_yaml_files_give_the_same_set(tmp_path):
    (tmp_path / "l.txt").write_text("left\n\nright \n")
    (tmp_path / "l.yaml").write_text("name: l\nlabels: [left, right]\n")
    from_text = load_label_set(source(file=str(tmp_path / "l.txt")))
    from_yaml = load_label_set(source(file=str(tmp_path / "l.yaml")))
    assert from_text.labels == from_yaml.labels == ("left", "right")
    assert from_text.digest == from_yaml.digest


def test_digest_depends_on_the_order():
    assert load_label_set(source(labels=["a", "b"])).digest != load_label_set(source(labels=["b", "a"])).digest


@pytest.mark.parametrize(
    "text", ["name: x\nlabels: [yes, no]\n", "name: x\nlabels: [a, a]\n", "name: x\n", "labels: []", "x: ["]
)
def test_bad_yaml_label_set_is_refused(tmp_path, text):
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load_label_set(source(file=str(tmp_path / "l.yaml")))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read"):
        load_label_set(source(file=str(tmp_path / "none.txt")))


def from_yaml(folder, text: str):
    (folder / "l.yaml").write_text(text)
    return load_label_set(source(file=str(folder / "l.yaml")))


TREE = """
name: sports
labels:
- {id: 1, name: rowing, parent: water sport}
- {id: 0, name: cycling, aliases: [riding bike, biking], description: on two wheels, parent: sport}
groups: [sport, {name: water sport, parent: sport}]
"""


def test_labels_have_ids_aliases_descriptions_and_a_tree(tmp_path):
    found = from_yaml(tmp_path, TREE)
    assert found.labels == ("cycling", "rowing")
    assert found.entries[0].names == ("cycling", "riding bike", "biking")
    assert found.entries[0].description == "on two wheels"
    assert found.ancestors("rowing") == ("water sport", "sport")


def test_digest_tells_aliases_and_leaves_plain_sets_as_they_were(tmp_path):
    plain = load_label_set(source(labels=["cycling", "rowing"]))
    assert plain.digest == "78469da1b316bb66219c43fbc8d8e947bb0d96d26781300362d8ae0230a50d32"
    assert from_yaml(tmp_path, "labels: [{name: cycling}, rowing]").digest == plain.digest
    assert from_yaml(tmp_path, "labels: [{name: cycling, aliases: [biking]}, rowing]").digest != plain.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels: [{name: a, aliases: [b]}, b]", "'b' more than once"),
        ("name: x\nlabels: [a, b, a]", "Label set x holds 'a' more than once"),
        ("labels: [a, '  ']", "'  ' is not a name"),
        ("labels: [a, no]", "False is not a name; write labels as quoted"),
        ("labels: [{name: a, aliases: b}]", "must be a list"),
        ("labels: [{name: a, alias: [b]}]", "unknown key 'alias'"),
        ("labels: [{name: ''}]", "'' is not a name"),
        ("labels: [{name: a, id: 0}, {name: b, id: 2}]", "ids must be 0 to 1"),
        ("labels: [{name: a, id: 0}, b]", "ids must be 0 to 1"),
        ("labels: [{name: a, parent: sport}]", "'sport', the parent of 'a', is no label"),
        ("labels: [{name: a, parent: b}, {name: b, parent: a}]", "is its own ancestor"),
        ("labels: [a]\ngroup: [b]", "unknown key 'group'"),
    ],
)
def test_bad_entries_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        from_yaml(tmp_path, text)


@pytest.mark.parametrize(
    ("names", "message"), [(["a", "b", "a"], "'a' more than once"), (["a", ""], "'' is not a name")]
)
def test_bad_names_in_the_config_are_named(names, message):
    with pytest.raises(ConfigError, match=message):
        load_label_set(source(labels=names))
