"""What every registered model family keeps, whatever its implementation."""

from dataclasses import dataclass

import pytest
import torch
from contracts.tiny_checkpoints import BUILDERS, LABELS, TinyCheckpoint

from vidcls_batch.config import LabelSetConfig, MemberConfig, SamplingConfig
from vidcls_batch.errors import VidclsError
from vidcls_batch.models.base import Member, Scores, Sound
from vidcls_batch.models.preprocess import preprocess
from vidcls_batch.models.registry import describe_member, family_facts, list_families, load_member

# The same code as a smaller sibling, or no small frames taken: many seconds.
LARGE = {
    "slowfast_r101",
    "x3d_l",
    "s3d",
    "mvit_v1_b",
    "mvit_v2_s",
    "swin3d_s",
    "swin3d_b",
    "uniformer_b",
    "c3d",
    "avslowfast_r50",
}
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
    assert member.input is not None
    shape = (clips, member.input.sampling.num_slots, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def noises(member: Member, *, clips: int = 2) -> Sound:
    """Noise of a colour and a length of its own for each clip."""
    generator = torch.Generator().manual_seed(7)
    assert member.sound is not None
    lengths = torch.tensor([member.sound.num_samples // (1 + clip) for clip in range(clips)])
    samples = torch.zeros(clips, member.sound.num_samples)
    for clip, length in enumerate(lengths.tolist()):
        noise = torch.randn(length, generator=generator) * 0.1
        samples[clip, :length] = noise + clip * 0.5 * noise.roll(1)
    return Sound(samples, lengths, member.sound.sample_rate)


@dataclass(frozen=True)
class Clips:
    """What a member is given: frames, sound or both."""

    frames: torch.Tensor | None
    sound: Sound | None

    def __getitem__(self, chosen: slice) -> "Clips":
        sound = self.sound
        if sound is not None:
            sound = Sound(sound.samples[chosen], sound.lengths[chosen], sound.sample_rate)
        return Clips(None if self.frames is None else self.frames[chosen], sound)

    def score(self, member: Member) -> Scores:
        return member.score(self.frames, self.sound)


def some_clips(member: Member, *, clips: int = 2) -> Clips:
    return Clips(
        frames=None if member.input is None else random_frames(member, clips=clips),
        sound=None if member.sound is None else noises(member, clips=clips),
    )


@pytest.fixture
def seeing(member: Member) -> Member:
    if member.input is None:
        pytest.skip("sees no frames")
    return member


@pytest.fixture
def hearing(member: Member) -> Member:
    if member.sound is None:
        pytest.skip("hears nothing")
    return member


def test_logits_equal_the_reference_model_on_the_same_input(tiny: TinyCheckpoint, member: Member) -> None:
    clips = some_clips(member)
    given: list[object] = []
    if clips.frames is not None:
        pixels = preprocess(clips.frames.flatten(0, 1), member.input, dtype=torch.float32)
        given.append(pixels.unflatten(0, clips.frames.shape[:2]))
    if clips.sound is not None:
        given.append(clips.sound)
    with torch.inference_mode():
        expected = tiny.reference(*given, LABELS)
    logits = clips.score(member).logits
    assert logits.shape == (2, 1, len(LABELS))
    assert expected.std() > 1e-2, "the reference's logits hardly differ; the comparison would prove nothing"
    torch.testing.assert_close(logits[:, 0], expected, atol=tiny.tolerance, rtol=0)


def test_description_agrees_with_the_loaded_member(family: str, tiny: TinyCheckpoint, member: Member) -> None:
    description = describe_member(member_config(family, tiny), labels=LABELS)
    assert (description.name, description.input, description.labels) == ("m", member.input, member.labels)
    assert description.sound == member.sound
    facts = family_facts(family)
    assert (facts.sees, facts.hears) == (member.input is not None, member.sound is not None)
    assert set(member.labels) == set(LABELS)
    scores = some_clips(member).score(member)
    width = None if scores.embeddings is None else scores.embeddings.shape[-1]
    assert width == description.embedding_dim


def test_each_clip_is_scored_by_itself(member: Member) -> None:
    clips = some_clips(member, clips=3)
    together = clips.score(member).logits
    alone = torch.cat([clips[i : i + 1].score(member).logits for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    backwards = torch.cat([clips[i : i + 1].score(member).logits for i in (2, 1, 0)])
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-4, rtol=1e-4)


def test_scoring_twice_gives_the_same_and_leaves_the_input_alone(member: Member) -> None:
    clips = some_clips(member)
    inputs = [x for x in (clips.frames, clips.sound and clips.sound.samples) if x is not None]
    before = [x.clone() for x in inputs]
    assert torch.equal(clips.score(member).logits, clips.score(member).logits)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


def test_the_order_of_channels_matters(seeing: Member) -> None:
    clips = some_clips(seeing)
    swapped = Clips(clips.frames.flip(-1), clips.sound)
    assert not torch.allclose(clips.score(seeing).logits, swapped.score(seeing).logits, atol=1e-4)


@pytest.mark.parametrize("sampling", [SamplingConfig(views=3), SamplingConfig(crops=3)], ids=["views", "crops"])
def test_views_are_scored_one_by_one(
    family: str, tiny: TinyCheckpoint, seeing: Member, sampling: SamplingConfig
) -> None:
    many = load_member(
        member_config(family, tiny, sampling=sampling),
        labels=LABELS,
        device="cpu",
    )
    clips = some_clips(many)
    num_frames = many.input.sampling.num_frames
    logits = clips.score(many).logits
    assert logits.shape == (2, 3, len(LABELS))
    for view in range(3):
        one = seeing.logits(clips.frames[:, view * num_frames : (view + 1) * num_frames], clips.sound)
        torch.testing.assert_close(logits[:, view], one[:, 0], atol=1e-4, rtol=1e-4)


def test_the_order_of_frames_matters_only_to_networks_that_see_time(family: str, seeing: Member) -> None:
    clips = some_clips(seeing)
    moved = Clips(clips.frames.roll(1, dims=1), clips.sound)  # C2D pools pairs of frames: a reversed clip keeps them
    same = torch.allclose(moved.score(seeing).logits, clips.score(seeing).logits, atol=1e-5)
    assert same == (family in POOLS_FRAMES)


def test_no_order_of_frames_matters_to_networks_that_pool_them(family: str, seeing: Member) -> None:
    if family not in POOLS_FRAMES:
        pytest.skip("sees time")
    clips = some_clips(seeing)
    expected = clips.score(seeing).logits
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        order = torch.randperm(clips.frames.shape[1], generator=generator)
        moved = Clips(clips.frames[:, order], clips.sound).score(seeing).logits
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["one frame less", "one frame more", "channels first", "float", "no batch", "none"])
def test_frames_of_another_shape_are_refused(seeing: Member, change: str) -> None:
    clips = some_clips(seeing)
    frames = clips.frames
    changed = {
        "one frame less": frames[:, :-1],
        "one frame more": torch.cat([frames, frames[:, :1]], dim=1),
        "channels first": frames.permute(0, 1, 4, 2, 3),
        "float": frames.float(),
        "no batch": frames[0],
        "none": None,
    }[change]
    with pytest.raises(ValueError, match="expected uint8"):
        seeing.logits(changed, clips.sound)


def test_sound_at_another_rate_is_refused(hearing: Member) -> None:
    clips = some_clips(hearing)
    sound = Sound(clips.sound.samples, clips.sound.lengths, clips.sound.sample_rate * 2)
    with pytest.raises(ValueError, match="samples a second, expected"):
        hearing.logits(clips.frames, sound)


@pytest.mark.parametrize("change", ["float64", "stereo", "no lengths", "too long", "none"])
def test_sound_of_another_shape_is_refused(hearing: Member, change: str) -> None:
    clips = some_clips(hearing)
    samples, lengths, rate = clips.sound.samples, clips.sound.lengths, clips.sound.sample_rate
    changed = {
        "float64": Sound(samples.double(), lengths, rate),
        "stereo": Sound(samples[:, None].repeat(1, 2, 1), lengths, rate),
        "no lengths": Sound(samples, lengths[:0], rate),
        "too long": Sound(torch.cat([samples, samples], dim=1), lengths, rate),
        "none": None,
    }[change]
    with pytest.raises(ValueError, match=r"expected float32|it hears|needs the clips' sound"):
        hearing.logits(clips.frames, changed)


def test_what_a_clip_sounds_like_and_for_how_long_matters(hearing: Member) -> None:
    clips = some_clips(hearing)
    logits = clips.score(hearing).logits
    quieter = Sound(clips.sound.samples * 0.1, clips.sound.lengths, clips.sound.sample_rate)
    shorter = Sound(clips.sound.samples, clips.sound.lengths // 2, clips.sound.sample_rate)
    for sound in (quieter, shorter):
        assert not torch.allclose(hearing.logits(clips.frames, sound), logits, atol=1e-4)


def test_silence_and_a_fifth_of_a_second_are_scored(hearing: Member) -> None:
    clips = some_clips(hearing)
    rate = clips.sound.sample_rate
    silent = Sound(torch.zeros_like(clips.sound.samples), clips.sound.lengths, rate)
    brief = Sound(clips.sound.samples[:, : rate // 5], torch.full((2,), rate // 5), rate)
    for sound in (silent, brief):
        scores = hearing.score(clips.frames, sound)
        assert scores.logits.isfinite().all()
        assert scores.present is None or scores.present.all()


def test_a_clip_without_sound_has_no_score_or_that_of_its_frames(hearing: Member) -> None:
    clips = some_clips(hearing)
    lengths = clips.sound.lengths * torch.tensor([1, 0])
    scores = hearing.score(clips.frames, Sound(clips.sound.samples, lengths, clips.sound.sample_rate))
    if hearing.input is None:
        assert scores.present.tolist() == [[True], [False]]
        return
    assert scores.present is None
    assert scores.logits.isfinite().all()
    other = Sound(clips.sound.samples.flip(0), lengths, clips.sound.sample_rate)  # what lies in its place is not heard
    again = hearing.score(clips.frames, other)
    torch.testing.assert_close(again.logits[1], scores.logits[1], atol=1e-5, rtol=0)
    assert not torch.allclose(again.logits[0], scores.logits[0], atol=1e-4)


def test_provenance_is_recorded(tiny: TinyCheckpoint, member: Member) -> None:
    assert member.record.checkpoint == str(tiny.path)
    assert len(member.record.weights_sha256) == 64
    assert member.record.num_parameters > 10


def test_a_run_with_more_labels_than_the_head_is_refused_or_scored(family: str, tiny: TinyCheckpoint) -> None:
    labels = (*LABELS, "juggling balls")
    if family_facts(family).zero_shot:
        loaded = load_member(member_config(family, tiny), labels=labels, device="cpu")
        assert some_clips(loaded).score(loaded).logits.shape[-1] == 4
        return
    with pytest.raises(VidclsError, match=r"4 names|4 labels"):
        some_clips(load_member(member_config(family, tiny), labels=LABELS, device="cpu")).score(
            load_member(member_config(family, tiny, labels=labels), labels=labels, device="cpu")
        )


def test_every_size_a_family_publishes_has_a_source() -> None:
    for facts in list_families():
        assert facts.sampling
        for model in facts.models:
            assert model.parameters_m > 0
            assert model.source
            assert model.k400_top1 is None or 50 < model.k400_top1 < 95
