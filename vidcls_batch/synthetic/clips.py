"""One clip with a known label, as a file."""

from fractions import Fraction
from pathlib import Path

from vidcls_batch.synthetic.encode import encode_mp4
from vidcls_batch.synthetic.scenes import Scene, draw_scene, render_frames
from vidcls_batch.synthetic.sounds import Sound, render_sound, sound_of_label


def write_clip(
    path: str | Path,
    *,
    label: str,
    seed: int,
    shape: str | None = None,
    colour: str | None = None,
    size: tuple[int, int] | None = None,
    fps: Fraction | float | None = None,
    duration_s: float | None = None,
    sound: Sound | None = None,
    has_sound: bool = True,
) -> Scene:
    """Write an H.264 + AAC clip that shows `label` and return what it shows; what is not given comes from `seed`.

    The same arguments give the same bytes. `size` is (width, height) in even pixels. Without `has_sound` the file
    has no audio stream.
    """
    scene = draw_scene(label, seed=seed, shape=shape, colour=colour, size=size, fps=fps, duration_s=duration_s)
    samples = render_sound(sound or sound_of_label(label), duration_s=scene.duration_s) if has_sound else None
    encode_mp4(
        path,
        frames=render_frames(scene),
        fps=scene.fps,
        samples=samples,
    )
    return scene
