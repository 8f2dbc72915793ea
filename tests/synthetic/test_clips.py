"""Synthetic clips show what their label says, and the same arguments give the same file."""

from fractions import Fraction

import av
import numpy as np
import pytest

from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.synthetic.motions import LABELS
from vidcls_batch.synthetic.scenes import draw_scene, render_frames
from vidcls_batch.synthetic.shapes import COLOURS, SHAPES
from vidcls_batch.synthetic.sounds import PATTERNS, Sound, render_sound, sound_of_label


def decode(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def masks(frames, scene):
    """Where each frame shows the shape: bool [T, H, W]."""
    away = np.linalg.norm(frames.astype(np.float32) - scene.background, axis=-1)
    close = np.linalg.norm(frames.astype(np.float32) - scene.rgb, axis=-1)
    return close < away


def centroids(frames, scene):
    """(x, y) of the shape in each frame in pixels, [T, 2]; frames without it are left out."""
    found = [np.argwhere(m).mean(axis=0)[::-1] for m in masks(frames, scene) if m.sum() > 20]
    return np.array(found)


@pytest.mark.parametrize("label", LABELS)
def test_each_label_gives_a_playable_h264_and_aac_file(label, tmp_path):
    scene = write_clip(tmp_path / "clip.mp4", label=label, seed=5)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (scene.width, scene.height)
        assert video.average_rate == scene.fps
        assert abs(float(audio.duration * audio.time_base) - scene.duration_s) < 0.1
    assert len(decode(tmp_path / "clip.mp4")) == scene.num_frames
    assert 1.9 < scene.duration_s < 3.1


@pytest.mark.parametrize(
    ("label", "axis", "direction"),
    [("moving left", 0, -1), ("moving right", 0, 1), ("moving up", 1, -1), ("moving down", 1, 1)],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_move_goes_where_its_label_says_after_encoding(label, axis, direction, seed, tmp_path):
    scene = write_clip(tmp_path / "clip.mp4", label=label, seed=seed)
    path = centroids(decode(tmp_path / "clip.mp4"), scene)
    moved = path[-1] - path[0]
    assert direction * moved[axis] > 0.2 * min(scene.width, scene.height)
    assert abs(moved[1 - axis]) < 5


@pytest.mark.parametrize(("label", "grows"), [("growing", True), ("shrinking", False)])
@pytest.mark.parametrize("seed", range(4))
def test_a_growing_shape_covers_more_and_a_shrinking_one_less(label, grows, seed):
    scene = draw_scene(label, seed=seed)
    areas = masks(np.stack(list(render_frames(scene))), scene).sum(axis=(1, 2))
    ratio = areas[-1] / areas[0]
    assert ratio > 2 if grows else ratio < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_rotating_shape_turns_by_a_quarter_to_a_half_in_its_place(seed):
    scene = draw_scene("rotating", seed=seed, shape="bar")
    frames = np.stack(list(render_frames(scene)))
    angles = []
    for mask in masks(frames, scene):
        y, x = np.argwhere(mask).T.astype(np.float64)
        cov = np.cov(x, y)
        angles.append(0.5 * np.arctan2(2 * cov[0, 1], cov[0, 0] - cov[1, 1]))
    # A bar looks the same after half a turn.
    turned = np.degrees(np.unwrap(np.array(angles), period=np.pi)[-1] - angles[0])
    assert 75 < abs(turned) < 190
    assert np.ptp(centroids(frames, scene), axis=0).max() < 3


def test_a_blinking_shape_is_there_and_gone_several_times():
    scene = draw_scene("blinking", seed=1)
    seen = masks(np.stack(list(render_frames(scene))), scene).sum(axis=(1, 2)) > 20
    assert 0.25 < seen.mean() < 0.85
    assert np.abs(np.diff(seen.astype(int))).sum() >= 3


def test_a_shape_that_stands_still_stays():
    scene = draw_scene("standing still", seed=1)
    path = centroids(np.stack(list(render_frames(scene))), scene)
    assert np.ptp(path, axis=0).max() < 2


def test_every_motion_keeps_its_shape_in_the_centre_square():
    for label in LABELS:
        for seed in range(20):
            poses = [draw_scene(label, seed=seed).path(t) for t in np.linspace(0, 1, 30)]
            assert max(max(abs(p.x), abs(p.y)) for p in poses) <= 0.34, (label, seed)


def test_same_seed_same_bytes_and_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_clip(tmp_path / name, label="orbiting", seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_same_clip_again_and_again_is_the_same_file_whatever_the_memory_held(tmp_path):
    written = set()
    for index in range(12):
        rubbish = np.random.default_rng(index).bytes(3_000_000)
        write_clip(tmp_path / "clip.mp4", label="moving right", seed=1_000_001, shape="star", colour="red")
        written.add((tmp_path / "clip.mp4").read_bytes())
        del rubbish
    assert len(written) == 1


def test_what_is_asked_for_is_what_the_clip_has(tmp_path):
    scene = write_clip(
        tmp_path / "clip.mp4",
        label="bouncing",
        seed=3,
        shape="cross",
        colour="purple",
        size=(96, 64),
        fps=12,
        duration_s=1.5,
    )
    assert (scene.shape, scene.colour, scene.fps, scene.num_frames) == ("cross", "purple", Fraction(12), 18)
    assert decode(tmp_path / "clip.mp4").shape == (18, 64, 96, 3)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_colour_is_still_itself_after_encoding(colour, tmp_path):
    scene = write_clip(tmp_path / "clip.mp4", label="standing still", seed=2, shape="square", colour=colour)
    frame = decode(tmp_path / "clip.mp4")[5]
    shown = np.median(frame[masks(frame[None], scene)[0]], axis=0)
    nearest = min(COLOURS, key=lambda name: float(np.linalg.norm(np.array(COLOURS[name]) - shown)))
    assert nearest == colour


def test_shapes_differ_from_each_other():
    pictures = {}
    for shape in SHAPES:
        scene = draw_scene("standing still", seed=4, shape=shape, colour="red", size=(128, 128))
        pictures[shape] = masks(next(render_frames(scene))[None], scene)[0]
    names = list(pictures)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            union = (pictures[a] | pictures[b]).sum()
            assert (pictures[a] & pictures[b]).sum() / union < 0.92, (a, b)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"label": "moving lefft"}, "moving left"),
        ({"label": "growing", "shape": "sqare"}, "square"),
        ({"label": "growing", "colour": "mauve"}, "Known"),
        ({"label": "rotating", "shape": "circle"}, "no rotation"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(arguments, hint):
    with pytest.raises(ValueError, match=hint):
        draw_scene(**arguments, seed=0)


def loudest_hz(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()]


def test_a_clip_sounds_as_it_was_told_to(tmp_path):
    write_clip(tmp_path / "clip.mp4", label="growing", seed=1, duration_s=2.0, sound=Sound("steady", pitch_hz=600.0))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    assert abs(loudest_hz(samples, rate) - 600.0) < 3.0


def test_labels_can_be_told_apart_by_ear_alone():
    assert len({(s.pattern, round(s.pitch_hz)) for s in map(sound_of_label, LABELS)}) == len(LABELS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_sound_pattern_stays_in_range_and_only_silence_is_silent(pattern):
    samples = render_sound(Sound(pattern), duration_s=1.0)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() <= 0.3 + 1e-6
    assert (np.abs(samples).max() == 0) == (pattern == "silent")


def test_a_rising_sound_rises():
    samples = render_sound(Sound("rising", pitch_hz=400.0), duration_s=2.0)
    assert loudest_hz(samples[-8000:], 44_100) > 1.5 * loudest_hz(samples[:8000], 44_100)
