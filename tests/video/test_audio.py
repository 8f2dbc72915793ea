import av
import numpy as np
import pytest

from tests.video.clips import audio_only
from tests.video.odd_clips import clip
from vidcls_batch.errors import ClipError, Status
from vidcls_batch.synthetic.clips import write_clip
from vidcls_batch.types import AudioState, DecodeLimits, FrameRequest, Sampling, SoundWindow
from vidcls_batch.video import audio
from vidcls_batch.video.audio import SoundReport, decode_sound
from vidcls_batch.video.decode import decode_in_process
from vidcls_batch.video.sandbox import SandboxedDecoder

WIDE = SoundWindow(16000, 160_000)


def heard(
    source: bytes, *windows: SoundWindow, start_s: float = 0.0, end_s: float = 3.0
) -> tuple[SoundReport, list[np.ndarray]]:
    """The report, and each window's own samples."""
    out = np.full(sum(w.num_samples for w in windows), np.nan, np.float32)
    report = decode_sound(out, source, windows=windows, limits=DecodeLimits(), start_s=start_s, end_s=end_s)
    assert np.isfinite(out).all()
    starts = np.cumsum([0, *(w.num_samples for w in windows)])
    parts = [out[start : start + n] for start, n in zip(starts[:-1], report.lengths, strict=True)]
    return report, parts


def loudest_hz(samples: np.ndarray, rate: int) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def test_sound_comes_mono_at_each_members_rate_from_one_decode():
    windows = [SoundWindow(rate, rate * 10) for rate in (8000, 16000, 48000)]
    report, parts = heard(clip("h264_audio"), *windows)
    assert report == SoundReport(AudioState.PRESENT, (24_000, 48_000, 144_000))
    for window, samples in zip(windows, parts, strict=True):
        assert loudest_hz(samples, window.sample_rate) == pytest.approx(440, abs=2)


def test_a_range_is_the_same_samples_as_that_part_of_the_whole():
    _, (whole,) = heard(clip("h264_audio"), WIDE)
    _, (part,) = heard(clip("h264_audio"), WIDE, start_s=1.0, end_s=2.0)
    assert len(part) == 16000
    assert np.allclose(part, whole[16000:32000], atol=1e-6)


def test_of_a_long_range_the_middle_is_heard():
    _, (whole,) = heard(clip("h264_audio"), WIDE)
    report, (middle,) = heard(clip("h264_audio"), SoundWindow(16000, 8000))
    assert report.lengths == (8000,)
    assert np.allclose(middle, whole[20_000:28_000], atol=1e-6)


def test_a_range_that_runs_past_the_end_is_filled_with_zeros():
    report, (part,) = heard(clip("h264_audio"), WIDE, start_s=2.5, end_s=4.5)
    assert len(part) == 32000
    assert np.abs(part[:4000]).max() > 0.1
    assert not part[16000:].any()
    assert report.state is AudioState.PRESENT


@pytest.mark.parametrize("container", ["mp4", "mkv", "mpegts"])
def test_a_jump_into_a_long_file_gives_the_samples_of_its_time(monkeypatch, tmp_path, container):
    """A chirp: each instant has a pitch of its own, so samples of another time would show."""
    path = tmp_path / f"long.{container}"
    rate, seconds = 44_100, 30
    t = np.arange(rate * seconds) / rate
    chirp = (0.3 * np.sin(2 * np.pi * (200 + 20 * t) * t)).astype(np.float32)
    with av.open(str(path), "w", format={"mkv": "matroska"}.get(container, container)) as file:
        stream = file.add_stream("aac", rate=rate, layout="mono")
        for start in range(0, len(chirp), 1024):
            frame = av.AudioFrame.from_ndarray(chirp[None, start : start + 1024].copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    source = path.read_bytes()
    jumps = []
    real = audio._jump
    monkeypatch.setattr(audio, "_jump", lambda *a: jumps.append(a[2]) or real(*a))
    _, (jumped,) = heard(source, WIDE, start_s=20.0, end_s=22.0)
    assert jumps == [pytest.approx(19.0, abs=1.5)]  # a file's clock need not start at 0
    monkeypatch.setattr(audio, "_JUMP_FROM_S", 1e9)
    _, (straight,) = heard(source, WIDE, start_s=20.0, end_s=22.0)
    # Matroska's clock has steps of a millisecond, and resampling starts at another sample: 2 ms apart at most.
    within = [np.abs(np.roll(jumped, lag)[40:-40] - straight[40:-40]).max() for lag in range(-32, 33)]
    assert min(within) < 0.1
    assert loudest_hz(jumped, 16000) == pytest.approx(loudest_hz(straight, 16000), abs=1)


def test_a_video_without_sound_is_missing_not_silent():
    report, _ = heard(clip("h264"), WIDE, end_s=1.0)
    assert report == SoundReport(AudioState.MISSING, (0,))


def test_a_range_that_the_track_does_not_reach_is_missing():
    report, _ = heard(clip("h264_audio"), WIDE, start_s=7.0, end_s=8.0)
    assert report == SoundReport(AudioState.MISSING, (0,))


def test_a_silent_track_is_silent_not_missing(monkeypatch):
    monkeypatch.setattr("tests.video.clips.LOUDNESS", 0.0)
    report, (samples,) = heard(audio_only(), WIDE, end_s=1.0)
    assert report == SoundReport(AudioState.SILENT, (16_000,))
    assert len(samples) == 16_000


def test_a_file_that_is_no_media_has_no_sound():
    report, _ = heard(b"nothing" * 1000, WIDE)
    assert report.state is AudioState.MISSING


def test_running_out_of_memory_is_no_missing_track(monkeypatch):
    def raise_error(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("av.AudioResampler", raise_error)
    with pytest.raises(ClipError) as caught:
        heard(clip("h264_audio"), WIDE)
    assert caught.value.status is Status.CRASHED


REQUEST = FrameRequest((Sampling(4),), 32, 32, sounds=(WIDE, SoundWindow(48000, 24_000)))


def test_sound_through_the_sandbox_equals_the_same_decode_in_process(tmp_path):
    with SandboxedDecoder(REQUEST, limits=DecodeLimits()) as decoder:
        for name, start_s, end_s in (("h264_audio", 1.0, 2.5), ("h264", None, None), ("h264_audio", None, None)):
            frames = np.zeros(REQUEST.frames_shape, np.uint8)
            samples = np.full(REQUEST.num_samples, 9.0, np.float32)
            report = decoder.decode(clip(name), start_s=start_s, end_s=end_s, out=frames, samples=samples)
            expected = decode_in_process(clip(name), REQUEST, start_s=start_s, end_s=end_s)
            assert (report.audio, report.sound_lengths) == (expected.report.audio, expected.report.sound_lengths)
            assert np.array_equal(samples, expected.samples)
            assert np.array_equal(frames, expected.frames)
            assert samples.any() == (name == "h264_audio")


def test_sound_nobody_asked_for_is_not_decoded(monkeypatch):
    monkeypatch.setattr("vidcls_batch.video.decode.decode_sound", None)
    report = decode_in_process(clip("h264_audio"), FrameRequest((Sampling(4),), 32, 32)).report
    assert (report.audio, report.sound_lengths) == (None, ())


def test_a_generated_clip_can_have_no_audio_stream(tmp_path):
    write_clip(tmp_path / "quiet.mp4", label="growing", seed=1, size=(32, 32), duration_s=1.0, has_sound=False)
    with av.open(str(tmp_path / "quiet.mp4")) as file:
        assert not file.streams.audio
