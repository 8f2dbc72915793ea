"""What a batch is made of: cached frames, label-safe changes, captions and their loss."""

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from vidcls_batch.errors import ManifestError
from vidcls_batch.synthetic.dataset import write_dataset
from vidcls_batch.training.architectures import Architecture, build_model
from vidcls_batch.training.augment import augment
from vidcls_batch.training.clip_cache import cache_clips, read_rows, select_rows
from vidcls_batch.training.config import AugmentationConfig, InputConfig
from vidcls_batch.training.contrastive import column_loss, contrastive_loss, spread_texts
from vidcls_batch.training.targets import CaptionTargets, ClassTargets, tokenize
from vidcls_batch.training.tokenizer import train_clip_tokenizer
from vidcls_batch.types import FrameRequest, Sampling

REQUEST = FrameRequest((Sampling(4),), height=32, width=32)


def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture(scope="module")
def clips():
    return torch.randint(0, 256, (6, 4, 16, 20, 3), dtype=torch.uint8, generator=generator())


def test_cache_leaves_out_what_cannot_be_decoded_and_keeps_rows_beside_their_frames(tmp_path):
    manifest = write_dataset(tmp_path / "clips", num_clips=3, seed=1, broken=True)
    cached = cache_clips(manifest, request=REQUEST, folder=tmp_path / "cache", threads=2)
    assert list(cached.rows.clip_id) == ["clip-00000", "clip-00001", "clip-00002"]
    assert cached.frames.shape == (3, 4, 32, 32, 3)
    alone = cache_clips(write_dataset(tmp_path / "clips", num_clips=2, seed=1), request=REQUEST, folder=tmp_path)
    assert np.array_equal(alone.frames, cached.frames[:2])


def test_cache_is_read_not_decoded_again(tmp_path):
    manifest = write_dataset(tmp_path / "clips", num_clips=2, seed=1)
    first = cache_clips(manifest, request=REQUEST, folder=tmp_path / "cache")
    for path in (tmp_path / "clips").glob("*.mp4"):
        path.unlink()
    again = cache_clips(manifest, request=REQUEST, folder=tmp_path / "cache")
    assert np.array_equal(first.frames, again.frames)
    with pytest.raises(ManifestError, match="decoded"):
        cache_clips(manifest, request=FrameRequest((Sampling(8),), 32, 32), folder=tmp_path / "cache")


def test_rows_are_selected_by_their_values(tmp_path):
    rows = pd.DataFrame({"pair": ["seen", "unseen", "seen"], "uri": list("abc")})
    assert select_rows(rows, {"pair": "seen"}).tolist() == [True, False, True]
    assert select_rows(rows, {}).all()
    with pytest.raises(ManifestError, match="uri"):
        select_rows(rows, {"pears": "seen"})
    with pytest.raises(ManifestError, match="no clip"):
        select_rows(rows, {"pair": "sene"})
    with pytest.raises(ManifestError, match="cannot read"):
        read_rows(tmp_path / "nowhere.csv")


def test_no_augmentation_changes_nothing(clips):
    assert torch.equal(augment(clips, AugmentationConfig(), generator=generator()), clips)


def test_shift_moves_all_frames_of_a_clip_alike(clips):
    frames = clips[:, :1].expand(-1, 4, -1, -1, -1)
    shifted = augment(frames, AugmentationConfig(shift=3), generator=generator())
    assert all(torch.equal(shifted[:, 0], shifted[:, t]) for t in range(4))
    assert not torch.equal(shifted, frames)
    inner = shifted[:, 0, 3:-3, 3:-3]
    for clip, moved in zip(frames[:, 0], inner, strict=True):
        places = [
            torch.equal(clip[3 - down : 13 - down, 3 - right : 17 - right], moved)
            for down in range(-3, 4)
            for right in range(-3, 4)
        ]
        assert sum(places) == 1


def test_flip_mirrors_whole_clips_and_only_when_asked(clips):
    clips = clips.repeat(5, 1, 1, 1, 1)
    flipped = augment(clips, AugmentationConfig(horizontal_flip=True), generator=generator())
    kinds = ["same" if torch.equal(a, b) else "mirrored" for a, b in zip(clips, flipped, strict=True)]
    assert set(kinds) == {"same", "mirrored"}
    for before, after, kind in zip(clips, flipped, kinds, strict=True):
        assert kind == "same" or torch.equal(before.flip(2), after)


def test_shuffled_channels_keep_each_pixels_values(clips):
    shuffled = augment(clips, AugmentationConfig(shuffle_channels=True), generator=generator())
    assert torch.equal(shuffled.sort(dim=-1).values, clips.sort(dim=-1).values)
    assert not torch.equal(shuffled, clips)


def test_brightness_contrast_and_noise_stay_within_their_limits():
    grey = torch.full((8, 2, 8, 8, 3), 100, dtype=torch.uint8)
    brighter = augment(grey, AugmentationConfig(brightness=0.1), generator=generator())
    assert (brighter.int() - 100).abs().max() <= 26
    assert len(brighter[:, 0, 0, 0, 0].unique()) > 1
    assert all(len(clip.unique()) == 1 for clip in brighter)
    stronger = augment(grey, AugmentationConfig(contrast=0.5), generator=generator())
    assert ((stronger.int() >= 86) & (stronger.int() <= 114)).all()
    noisy = augment(grey, AugmentationConfig(noise=0.05), generator=generator())
    assert 0 < noisy.float().std() < 0.05 * 255


def test_each_column_of_captions_is_a_comparison_of_its_own_and_equal_captions_are_one():
    columns = [
        [["a red star growing", "a blue star growing"]],
        [["growing", "growing"], ["gets larger", "gets larger"]],
    ]
    names = {caption for column in columns for wording in column for caption in wording}
    tokens = {caption: torch.tensor([i, 9]) for i, caption in enumerate(names)}
    targets = CaptionTargets(columns, tokens=tokens, generator=generator())
    wordings = set()
    for _ in range(20):
        batch = targets([1, 0])
        assert batch["columns"].tolist() == [0, 0, 1]
        assert batch["labels"].shape == (2, 2)
        chosen = batch["input_ids"][batch["labels"]]
        assert torch.equal(chosen[0, 0], tokens["a blue star growing"])
        assert torch.equal(chosen[1, 0], tokens["a red star growing"])
        assert torch.equal(chosen[0, 1], chosen[1, 1])
        wordings.add(int(chosen[0, 1, 0]))
    assert wordings == {int(tokens["growing"][0]), int(tokens["gets larger"][0])}


def test_a_columns_captions_are_not_compared_with_another_columns():
    columns, labels = torch.tensor([0, 0, 1]), torch.tensor([[0, 2], [1, 2]])
    logits = torch.randn(2, 3, generator=generator())
    shifted = logits + torch.tensor([0.0, 0.0, 50.0])  # far higher scores in the other column change nothing
    alone = contrastive_loss(logits[:, :2], torch.tensor([0, 1])) + contrastive_loss(
        logits[:, 2:], torch.tensor([0, 0])
    )
    assert torch.allclose(column_loss(logits, labels, columns), alone / 2)
    assert torch.allclose(column_loss(shifted, labels, columns), alone / 2)


def test_class_targets_carry_the_classes_texts_where_there_are_any():
    assert set(ClassTargets([3, 4])([0])) == {"labels"}
    batch = ClassTargets([3, 4], input_ids=torch.ones(5, 7))([1, 0])
    assert batch["labels"].tolist() == [4, 3]
    assert batch["input_ids"].shape == (5, 7)


def test_contrastive_loss_is_clips_own_when_every_clip_has_its_own_caption():
    logits = torch.randn(5, 5, generator=generator())
    order = torch.arange(5)
    clip = (torch.nn.functional.cross_entropy(logits, order) + torch.nn.functional.cross_entropy(logits.T, order)) / 2
    assert torch.allclose(contrastive_loss(logits, order), clip)


def test_contrastive_loss_does_not_push_clips_of_one_caption_apart():
    labels = torch.tensor([0, 0, 1])
    right = torch.tensor([[9.0, -9.0], [9.0, -9.0], [-9.0, 9.0]])
    # Two clips share caption 0, so half of log 2 is the least the text-to-video side can reach for it.
    assert contrastive_loss(right, labels).item() == pytest.approx(np.log(2) / 4, abs=1e-3)
    assert contrastive_loss(-right, labels) > 10


def test_contrastive_loss_ignores_captions_no_clip_has():
    loss = contrastive_loss(torch.tensor([[5.0, -5.0, 0.0]]), torch.tensor([0]))
    assert torch.isfinite(loss)


def test_learned_tokenizer_has_whole_words_for_its_captions_and_bytes_for_the_rest(tmp_path):
    captions = [f"a {c} star moving {d}" for c in ("red", "blue") for d in ("left", "right")]
    trained = train_clip_tokenizer(captions, vocab_size=640, max_length=16)
    trained.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer("a red star moving left")["input_ids"]) == 5 + 2
    odd = tokenizer("Größe 42!")["input_ids"]
    assert odd[0] == tokenizer.bos_token_id
    assert odd[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in odd[1:-1]
    assert tokenizer("A RED star")["input_ids"] == tokenizer("a red  star")["input_ids"]


def test_end_token_is_the_highest_as_clip_models_look_for_it(tmp_path):
    tokenizer = train_clip_tokenizer(["a red star"], vocab_size=600, max_length=12)
    tokens = tokenize(["a red star", "a"], tokenizer)
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    for text, words in (("a red star", 3), ("a", 1)):
        assert len(tokens[text]) == 12
        assert int(tokens[text].argmax()) == words + 1


def test_a_new_models_captions_are_spread_apart_before_training():
    captions = [
        f"a {colour} shape {motion}" for colour in ("red", "blue", "green") for motion in ("growing", "blinking")
    ]
    tokenizer = train_clip_tokenizer(captions, vocab_size=600, max_length=12)
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = build_model(
        "xclip",
        Architecture(
            arguments={
                "projection_dim": 32,
                "prompt_num_attention_heads": 2,
                "text_config": tower,
                "vision_config": tower,
            },
            input=InputConfig(num_frames=2, size=32),
            labels=[],
            tokenizer=tokenizer,
        ),
    )
    input_ids = torch.stack(list(tokenize(captions, tokenizer).values()))

    def mean_cosine():
        with torch.no_grad():
            texts = model.text_projection(model.text_model(input_ids=input_ids).pooler_output)
        texts = torch.nn.functional.normalize(texts, dim=-1)
        return float((texts @ texts.T).sum() - len(texts)) / (len(texts) * (len(texts) - 1))

    before = mean_cosine()
    spread_texts(model, input_ids)
    assert mean_cosine() < before - 0.2
