"""What every registered model family keeps, whatever its implementation."""

import pytest
import torch
from contracts.tiny_checkpoints import BUILDERS, LABELS, TinyCheckpoint

from vidcls_batch.config import LabelSetConfig, MemberConfig, SamplingConfig
from vidcls_batch.errors import VidclsError
from vidcls_batch.models.base import Member
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.models.registry import describe_member, family_facts, list_families, load_member

# The same code as a smaller sibling, or no small frames taken: many seconds.
LARGE = {"slowfast_r101", "x3d_l", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_s", "swin3d_b", "uniformer_b", "c3d"}
FAMILIES = [
    pytest.param(
        facts.family,
        marks=[
            pytest.mark.skipif(not facts.available, reason=f"needs the extra {facts.extra}"),
            pytest.mark.skipif("cpu" not in facts.devices, reason="runs on GPUs only: benchmarks/gpu/"),
            *([pytest.mark.slow] if facts.family in LARGE else []),
        ],
    )
    for facts in list_families()
]
POOLS_FRAMES = {"clip", "metaclip2", "siglip", "siglip2"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tiny(family: str, tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    assert family in BUILDERS, (
        f"{family} is registered without a tiny checkpoint in tests/contracts/tiny_checkpoints.py"
    )
    return BUILDERS[family](tmp_path_factory.mktemp(family))


def member_config(
    family: str, tiny: TinyCheckpoint, *, sampling: SamplingConfig | None = None, labels: tuple[str, ...] | None = None
) -> MemberConfig:
    if labels is None and tiny.needs_labels:
        labels = LABELS
    return MemberConfig(
        name="m",
        family=family,
        checkpoint=str(tiny.path),
        labels=None if labels is None else LabelSetConfig(labels=labels),
        sampling=(sampling or SamplingConfig()).model_copy(update={"num_frames": tiny.num_frames}),
    )


@pytest.fixture(scope="module")
def member(family: str, tiny: TinyCheckpoint) -> Member:
    return load_member(member_config(family, tiny), labels=LABELS, device="cpu")


def random_frames(member: Member, *, clips: int = 2, height: int = 45, width: int = 61) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    shape = (clips, member.input.sampling.num_slots, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_logits_equal_the_reference_model_on_the_same_pixels(tiny: TinyCheckpoint, member: Member) -> None:
    frames = random_frames(member)
    pixels = preprocess(frames.flatten(0, 1), member.input, dtype=torch.float32).unflatten(0, frames.shape[:2])
    with torch.inference_mode():
        expected = tiny.reference(pixels, LABELS)
    logits = member.logits(frames)
    assert logits.shape == (2, 1, len(LABELS))
    assert expected.std() > 1e-2, "the reference's logits hardly differ; the comparison would prove nothing"
    torch.testing.assert_close(logits[:, 0], expected, atol=tiny.tolerance, rtol=0)


def test_description_agrees_with_the_loaded_member(family: str, tiny: TinyCheckpoint, member: Member) -> None:
    description = describe_member(member_config(family, tiny), labels=LABELS)
    assert (description.name, description.input, description.labels) == ("m", member.input, member.labels)
    assert set(member.labels) == set(LABELS)
    scores = member.score(random_frames(member))
    width = None if scores.embeddings is None else scores.embeddings.shape[-1]
    assert width == description.embedding_dim


def test_each_clip_is_scored_by_itself(member: Member) -> None:
    frames = random_frames(member, clips=3)
    together = member.logits(frames)
    alone = torch.cat([member.logits(frames[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(member.logits(frames.flip(0)).flip(0), together, atol=1e-4, rtol=1e-4)


def test_scoring_twice_gives_the_same_and_leaves_the_frames_alone(member: Member) -> None:
    frames = random_frames(member)
    before = frames.clone()
    assert torch.equal(member.logits(frames), member.logits(frames))
    assert torch.equal(frames, before)


def test_the_order_of_channels_matters(member: Member) -> None:
    frames = random_frames(member)
    assert not torch.allclose(member.logits(frames), member.logits(frames.flip(-1)), atol=1e-4)


@pytest.mark.parametrize("sampling", [SamplingConfig(views=3), SamplingConfig(crops=3)], ids=["views", "crops"])
def test_views_are_scored_one_by_one(
    family: str, tiny: TinyCheckpoint, member: Member, sampling: SamplingConfig
) -> None:
    many = load_member(
        member_config(family, tiny, sampling=sampling),
        labels=LABELS,
        device="cpu",
    )
    frames = random_frames(many)
    num_frames = many.input.sampling.num_frames
    logits = many.logits(frames)
    assert logits.shape == (2, 3, len(LABELS))
    for view in range(3):
        one = member.logits(frames[:, view * num_frames : (view + 1) * num_frames])
        torch.testing.assert_close(logits[:, view], one[:, 0], atol=1e-4, rtol=1e-4)


def test_the_order_of_frames_matters_only_to_networks_that_see_time(family: str, member: Member) -> None:
    frames = random_frames(member)
    moved = member.logits(frames.roll(1, dims=1))  # C2D pools pairs of frames: a reversed clip keeps its pairs
    assert torch.allclose(moved, member.logits(frames), atol=1e-5) == (family in POOLS_FRAMES)


@pytest.mark.parametrize("change", ["one frame less", "one frame more", "channels first", "float", "no batch"])
def test_frames_of_another_shape_are_refused(member: Member, change: str) -> None:
    frames = random_frames(member)
    changed = {
        "one frame less": frames[:, :-1],
        "one frame more": torch.cat([frames, frames[:, :1]], dim=1),
        "channels first": frames.permute(0, 1, 4, 2, 3),
        "float": frames.float(),
        "no batch": frames[0],
    }[change]
    with pytest.raises(ValueError, match="expected uint8"):
        member.logits(changed)


def test_provenance_is_recorded(tiny: TinyCheckpoint, member: Member) -> None:
    assert member.record.checkpoint == str(tiny.path)
    assert len(member.record.weights_sha256) == 64
    assert member.record.num_parameters > 100


def test_a_run_with_more_labels_than_the_head_is_refused_or_scored(family: str, tiny: TinyCheckpoint) -> None:
    labels = (*LABELS, "juggling balls")
    if family_facts(family).zero_shot:
        loaded = load_member(member_config(family, tiny), labels=labels, device="cpu")
        assert loaded.logits(random_frames(loaded)).shape[-1] == 4
        return
    with pytest.raises(VidclsError, match=r"4 names|4 labels"):
        load_member(member_config(family, tiny, labels=labels), labels=labels, device="cpu").logits(
            random_frames(load_member(member_config(family, tiny), labels=LABELS, device="cpu"))
        )


def test_every_size_a_family_publishes_has_a_source() -> None:
    for facts in list_families():
        assert facts.sampling
        for model in facts.models:
            assert model.parameters_m > 0
            assert model.source
            assert model.k400_top1 is None or 50 < model.k400_top1 < 95
