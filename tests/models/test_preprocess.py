import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import VivitImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from vidcls_batch.errors import CheckpointError
from vidcls_batch.models.base import InputSpec
from vidcls_batch.models.checkpoints import Checkpoint
from vidcls_batch.models.input_spec import read_input_spec
from vidcls_batch.models.preprocess import preprocess, resize_and_crop, resize_as_float
from vidcls_batch.types import Sampling

RECIPE = InputSpec(
    sampling=Sampling(num_frames=2),
    short_side=224,
    height=224,
    width=224,
    mean=(0.1, 0.2, 0.3),
    std=(0.4, 0.5, 0.6),
)
PROCESSORS = {
    "videomae as published": VideoMAEImageProcessorPil(
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    ),
    "timesformer as published": VideoMAEImageProcessorPil(image_mean=[0.45] * 3, image_std=[0.225] * 3),
    "larger short side": VideoMAEImageProcessorPil(size={"shortest_edge": 256}),
    "vivit, -1 to 1": VivitImageProcessor(size={"shortest_edge": 256}, do_normalize=False),
    "vivit, normalised again": VivitImageProcessor(size={"shortest_edge": 256}),
    "clip, bicubic": CLIPImageProcessorPil(),
    "siglip, stretched": SiglipImageProcessorPil(),
}


def photo_like(height: int, width: int) -> np.ndarray:
    """Smooth areas, hard edges and noise; uint8 [H, W, 3]."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 100 * np.sin(x / 37)[..., None] * np.cos(y / 23)[..., None] * np.array([1, 0.7, -0.9])
    checks = ((x // 9 + y // 7) % 2 * 255)[..., None]
    image = np.where((x > width // 2)[..., None], checks, waves) + rng.normal(0, 12, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8)


def checkpoint_with(folder: Path, **facts: object) -> Checkpoint:
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return Checkpoint(name="tiny", path=folder, revision=None)


@pytest.mark.parametrize(
    "size", [(1080, 1920), (1920, 1080), (256, 340), (240, 320), (225, 224), (224, 224), (90, 160)]
)
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_within_one_grey_level_of_the_checkpoints_own_processor(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    processor = PROCESSORS[name]
    processor.save_pretrained(tmp_path)
    spec, source = read_input_spec(Checkpoint(name="tiny", path=tmp_path, revision=None), recipe=RECIPE)
    assert source == "preprocessor_config.json"
    image = photo_like(*size)
    expected = torch.as_tensor(np.array(processor([image], return_tensors="np")["pixel_values"])).reshape(3, 224, 224)
    pixels = preprocess(torch.from_numpy(image)[None], spec, dtype=torch.float32)[0]
    grey_level = spec.scale / torch.tensor(spec.std).view(3, 1, 1)
    difference = (pixels - expected).abs() / grey_level
    if spec.resample == "bicubic":
        # Both clip between their passes, from weights of different precision: a stray pixel may be two levels off.
        assert difference.max() < 2.01
        assert (difference > 1.01).float().mean() < 1e-4
    else:
        assert difference.max() < 1.01


def test_frames_that_already_have_the_size_are_not_touched() -> None:
    image = torch.from_numpy(photo_like(224, 224))[None]
    assert torch.equal(resize_and_crop(image, RECIPE)[0], image[0].permute(2, 0, 1))


def test_the_float_path_of_accelerators_agrees_with_the_uint8_path() -> None:
    image = torch.from_numpy(photo_like(540, 960))[None]
    for resample in ("bilinear", "bicubic"):
        spec = replace(RECIPE, resample=resample)
        on_cpu = resize_and_crop(image, spec)
        resized = resize_as_float(image.permute(0, 3, 1, 2), (224, 398), resample)
        on_accelerator = resized[..., :, 87 : 87 + 224]
        assert (on_cpu.int() - on_accelerator.int()).abs().max() <= 1


def test_pixel_values_are_what_the_formula_says() -> None:
    frames = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    frames[..., 0], frames[..., 2] = 255, 51
    spec = replace(RECIPE, offset=-1.0, scale=1 / 127.5)
    pixels = preprocess(frames, spec, dtype=torch.float32)
    expected = [(1.0 - 0.1) / 0.4, (-1.0 - 0.2) / 0.5, (51 / 127.5 - 1 - 0.3) / 0.6]
    torch.testing.assert_close(pixels[0, :, 5, 5], torch.tensor(expected))


def test_low_precision_pixels_are_the_rounded_float_pixels() -> None:
    frames = torch.from_numpy(photo_like(240, 320))[None]
    full = preprocess(frames, RECIPE, dtype=torch.float32)
    assert torch.equal(preprocess(frames, RECIPE, dtype=torch.bfloat16), full.bfloat16())


def test_newer_processor_files_are_read_too(tmp_path: Path) -> None:
    facts = {"size": {"shortest_edge": 256}, "crop_size": 224, "image_mean": [0.5, 0.5, 0.5]}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": facts}))
    checkpoint = Checkpoint(name="tiny", path=tmp_path, revision=None)
    spec, source = read_input_spec(checkpoint, recipe=RECIPE)
    assert (spec.short_side, spec.mean, source) == (256, (0.5, 0.5, 0.5), "processor_config.json")
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(facts | {"image_mean": [0.4, 0.4, 0.4]}))
    assert read_input_spec(checkpoint, recipe=RECIPE)[0].mean == (0.4, 0.4, 0.4)


def test_without_a_processor_file_the_published_recipe_is_used_and_said(tmp_path: Path) -> None:
    checkpoint = Checkpoint(name="tiny", path=tmp_path, revision=None)
    assert read_input_spec(checkpoint, recipe=RECIPE) == (RECIPE, "family recipe")


def test_old_sizes_without_names_are_the_short_side(tmp_path: Path) -> None:
    spec, _ = read_input_spec(checkpoint_with(tmp_path, size=256, crop_size=224, do_center_crop=True), recipe=RECIPE)
    assert (spec.fit, spec.short_side, spec.height) == ("cover", 256, 224)


def test_switched_off_steps_are_left_out(tmp_path: Path) -> None:
    spec, _ = read_input_spec(checkpoint_with(tmp_path, do_normalize=False, do_rescale=False), recipe=RECIPE)
    assert (spec.mean, spec.std, spec.scale) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"crop_size": 112}, "112x112 pixels, but the network's config.json says 224x224"),
        ({"size": {"shortest_edge": 200}}, "does not fit a short side of 200"),
        ({"size": {"longest_edge": 200}}, "is not known here"),
        ({"resample": 1}, "resample is 1; known: 2"),
        ({"do_resize": False}, "do_resize is false"),
        ({"image_mean": [0.5]}, "no value per RGB channel"),
        ({"image_std": ["a", "b", "c"]}, "is no number"),
    ],
)
def test_preprocessing_that_is_not_understood_is_refused(
    facts: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_input_spec(checkpoint_with(tmp_path, **facts), recipe=RECIPE)
