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
