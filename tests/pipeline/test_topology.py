import pytest

from vidcls_batch.pipeline import Stages, UnitShare, build_dataset, operator_names
from vidcls_batch.resources import Capacity, stage_resources
from vidcls_batch.run_spec import resolve_run


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("private", "num_gpus"), [(True, 0), (False, 0), (True, 1), (False, 1)])
def test_decoding_and_classifying_are_operators_of_their_own(make_config, private, num_gpus):
    spec = resolve_run(make_config("unused.csv"))
    resources = stage_resources(
        spec.config.resources,
        capacity=Capacity(num_cpus=2, num_gpus=num_gpus, private=private),
        frame_bytes=spec.frame_bytes,
    )
    assert resources.device == ("cuda" if num_gpus else "cpu")
    stages = Stages(
        run_uri="unused",
        storage=spec.storage,
        decode=spec.decode_settings(),
        classify=spec.classify_settings(resources),
    )
    dataset = build_dataset([UnitShare(unit=0, attempts=1)], stages=stages, resources=resources)
    names = operator_names(dataset)
    assert [name.partition("[")[0] for name in names] == [
        "Input",
        "MapBatches(_read_shares)",
        "StreamingRepartition",
        "MapBatches(_decode_block)",
        "MapBatches(_ClassifierActor)",
    ]


def test_members_that_want_the_same_frames_share_one_decode(make_config, models):
    member = {"family": "videomae", "checkpoint": str(models.videomae), "sampling": {"rule": "uniform"}}
    config = make_config("unused.csv", members=[{**member, "name": "a"}, {**member, "name": "b"}])
    alone = make_config("unused.csv", members=[{**member, "name": "a"}])
    assert resolve_run(config).request == resolve_run(alone).request
