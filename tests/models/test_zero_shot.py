"""Label texts of zero-shot members: templates, names, negatives, their cache, and scoring stored evidence again."""

from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny_checkpoints import TinyCheckpoint, clip, xclip

from vidcls_batch.config import MemberConfig
from vidcls_batch.errors import ConfigError
from vidcls_batch.models import zero_shot
from vidcls_batch.models.checkpoints import open_checkpoint
from vidcls_batch.models.registry import describe_member, load_member, load_text_scorer
from vidcls_batch.models.zero_shot import embed_labels, fill_prompts, load_templates, template_sets

LABELS = ("riding bike", "surfing water", "abseiling")
ALIASES = (("cycling", "biking"), (), ("rappelling",))


@pytest.fixture(scope="module", params=["xclip", "clip"])
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MemberConfig:
    tiny: TinyCheckpoint = {"xclip": xclip, "clip": clip}[request.param](tmp_path_factory.mktemp(request.param))
    return MemberConfig(name="m", family=request.param, checkpoint=str(tiny.path))


def scores_of(config: MemberConfig, **texts: tuple[tuple[str, ...], ...]):
    loaded = load_member(config, labels=LABELS, device="cpu", **texts)
    slots = loaded.input.sampling.num_slots
    frames = torch.randint(0, 256, (3, slots, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return loaded.score(frames)


def test_shipped_sets_are_what_their_names_say():
    assert load_templates(None) == load_templates("single") == ("a video of {}",)
    many = load_templates("actions28")
    assert len(set(many)) == 28
    assert load_templates("sound") == ("this is a sound of {}",)
    assert set(template_sets()) == {"single", "actions28", "sound"}


def test_a_template_file_can_be_given(tmp_path: Path):
    (tmp_path / "t.yaml").write_text('templates: ["somebody {}"]')
    assert load_templates(str(tmp_path / "t.yaml")) == ("somebody {}",)


@pytest.mark.parametrize(
    ("text", "message"),
    [("templates: [a video]", "needs exactly one {}"), ("templates: []", "at least one"), ("[a]", "needs the key")],
)
def test_template_files_that_are_none_are_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_templates(str(tmp_path / "t.yaml"), where="members.m")


def test_unknown_set_names_those_there_are():
    with pytest.raises(ConfigError, match=r"'action28' is no template set \(actions28, single, sound\)"):
        load_templates("action28")


def test_every_name_goes_into_every_template_and_all_count_the_same(member: MemberConfig):
    """Aliases in the label set are the same as their texts spelled out, whatever the order."""
    aliased = scores_of(member.model_copy(update={"prompts": ("a {}", "the {}")}), aliases=ALIASES)
    texts = fill_prompts([(label, *more) for label, more in zip(LABELS, ALIASES, strict=True)], ("a {}", "the {}"))
    assert [len(t) for t in texts] == [6, 2, 4]
    plain = scores_of(member.model_copy(update={"prompts": ("a {}", "the {}")}))
    assert torch.allclose(aliased.logits[..., 1], plain.logits[..., 1], atol=1e-5)
    assert not torch.allclose(aliased.logits[..., 0], plain.logits[..., 0], atol=1e-4)


def test_negative_prompts_are_outputs_behind_the_labels(member: MemberConfig):
    negative = member.model_copy(update={"negative_prompts": ("a video of nothing", "noise")})
    described = describe_member(negative, labels=LABELS)
    assert described.labels == (*LABELS, "a video of nothing", "noise")
    with_them, without = scores_of(negative).logits, scores_of(member).logits
    assert with_them.shape[-1] == 5
    assert torch.allclose(with_them[..., :3], without, atol=1e-5)


def test_stored_evidence_scores_as_the_network_did(member: MemberConfig):
    scores = scores_of(member)
    scorer = load_text_scorer(member, labels=LABELS)
    context = None if scores.context is None else scores.context[:, 0]
    again = scorer(scores.embeddings[:, 0], context)
    assert torch.allclose(again, scores.logits[:, 0], atol=2e-4)
    described = describe_member(member, labels=LABELS)
    assert described.context_dim == (None if context is None else context.shape[1])
    assert described.embedding_dim == scores.embeddings.shape[-1]


def test_texts_are_embedded_once_and_told_apart(member: MemberConfig, tmp_path: Path):
    calls: list[int] = []

    def embed(texts: list[str]) -> torch.Tensor:
        calls.append(len(texts))
        return torch.tensor([[float(len(t)), 1.0] for t in texts])

    checkpoint = open_checkpoint(member.checkpoint)
    texts = (("a", "bbb"), ("cc",))
    for _ in range(2):
        found = embed_labels(texts, embed=embed, checkpoint=checkpoint, kind="k", cache_dir=tmp_path)
        assert found.tolist() == [[2.0, 1.0], [2.0, 1.0]]
    assert calls == [3]
    for other in ({"texts": (("a",), ("cc",))}, {"kind": "l"}):
        arguments = {"texts": texts, "kind": "k"} | other
        embed_labels(arguments["texts"], embed=embed, checkpoint=checkpoint, kind=arguments["kind"], cache_dir=tmp_path)
    assert calls == [3, 2, 3]


def test_damaged_cache_is_made_anew_and_one_that_cannot_be_written_is_done_without(
    member: MemberConfig, tmp_path: Path
):
    def embed(texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), 2)

    checkpoint = open_checkpoint(member.checkpoint)
    embed_labels((("a",),), embed=embed, checkpoint=checkpoint, kind="k", cache_dir=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"torn")
    assert embed_labels((("a",),), embed=embed, checkpoint=checkpoint, kind="k", cache_dir=tmp_path).tolist() == [
        [1, 1]
    ]
    file = tmp_path / "file"
    file.write_text("")
    assert embed_labels((("a",),), embed=embed, checkpoint=checkpoint, kind="k", cache_dir=file).tolist() == [[1, 1]]


def test_thousands_of_texts_go_through_in_parts(member: MemberConfig, tmp_path: Path):
    sizes: list[int] = []

    def embed(texts: list[str]) -> torch.Tensor:
        sizes.append(len(texts))
        return torch.tensor([[float(t)] for t in texts])

    texts = tuple((str(k), str(k + 1)) for k in range(3000))
    checkpoint = open_checkpoint(member.checkpoint)
    found = embed_labels(texts, embed=embed, checkpoint=checkpoint, kind="k", cache_dir=tmp_path)
    assert np.allclose(found[:, 0].numpy(), np.arange(3000) + 0.5)
    assert max(sizes) == zero_shot._TEXTS_AT_ONCE
