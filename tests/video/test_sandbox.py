import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.video.faulty_decoder import BACKEND, with_fault
from tests.video.odd_clips import clip
from vidcls_batch.errors import ClipError, ConfigError, Stage, Status
from vidcls_batch.types import DecodeLimits, DecodeReport, FrameRequest, Sampling
from vidcls_batch.video.decode import decode_in_process
from vidcls_batch.video.sandbox import SandboxedDecoder
from vidcls_batch.video.sandbox_process import allowed_seconds

REQUEST = FrameRequest((Sampling(8), Sampling(4, "stride", stride=2, views=2)), 64, 64)
LIMITS = DecodeLimits(timeout_s=2.0, memory_mb=256)


def blank() -> np.ndarray:
    return np.zeros(REQUEST.frames_shape, np.uint8)


def decode(decoder: SandboxedDecoder, source: bytes) -> DecodeReport:
    return decoder.decode(source, out=blank())


def failure(decoder: SandboxedDecoder, source: bytes) -> ClipError:
    with pytest.raises(ClipError) as caught:
        decode(decoder, source)
    return caught.value


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.fixture(scope="module")
def faulty() -> Iterator[SandboxedDecoder]:
    with SandboxedDecoder(REQUEST, limits=LIMITS, backend=BACKEND) as decoder:
        yield decoder


def test_sandboxed_frames_equal_the_same_decode_in_process():
    out = blank()
    with SandboxedDecoder(REQUEST, limits=DecodeLimits()) as decoder:
        report = decoder.decode(clip("h264_vfr"), start_s=1.0, end_s=6.0, out=out)
    expected = decode_in_process(clip("h264_vfr"), REQUEST, start_s=1.0, end_s=6.0)
    assert np.array_equal(out, expected.frames)
    assert (report.facts, report.quality, report.decoder) == (
        expected.report.facts,
        expected.report.quality,
        expected.report.decoder,
    )


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("hang", Status.TIMEOUT, "decode_timeout"),
        ("stop", Status.TIMEOUT, "decode_timeout"),
        ("segfault", Status.CRASHED, "sigsegv"),
        ("abort", Status.CRASHED, "sigabrt"),
        ("exit", Status.CRASHED, "process_ended"),
        ("memory", Status.CRASHED, "out_of_memory"),
        ("raise", Status.DECODE_ERROR, "decoder_raised"),
    ],
)
def test_whatever_a_clip_does_becomes_its_status_and_the_next_clip_is_fine(faulty, fault, status, code):
    error = failure(faulty, with_fault(clip("h264"), fault))
    assert (error.status, error.stage, error.code) == (status, Stage.DECODE, code)
    assert decode(faulty, clip("h264")).quality.frames_decoded > 0


def test_a_crash_carries_the_decoders_last_words(faulty):
    assert "last words" in failure(faulty, with_fault(clip("h264_ts"), "abort")).message


def test_a_hanging_clip_is_stopped_at_the_limit(faulty):
    start = time.monotonic()
    failure(faulty, with_fault(clip("h264_mkv"), "hang"))
    assert time.monotonic() - start < LIMITS.timeout_s + 1.5


def test_a_clip_that_killed_twice_is_not_tried_a_third_time(faulty):
    killer = with_fault(clip("vp9"), "segfault")
    assert failure(faulty, killer).code == "sigsegv"  # tried in two children: a crash may be an earlier clip's doing
    again = failure(faulty, killer)
    assert (again.status, again.code) == (Status.CRASHED, "quarantined")


def test_a_clip_that_hung_twice_is_not_tried_a_third_time():
    hanging = with_fault(clip("h264"), "hang")
    with SandboxedDecoder(REQUEST, limits=DecodeLimits(timeout_s=0.5), backend=BACKEND) as decoder:
        codes = [failure(decoder, hanging).code for _ in range(3)]
    assert codes == ["decode_timeout", "decode_timeout", "quarantined"]


def test_a_new_child_is_ready_within_a_tenth_of_a_second(faulty):
    failure(faulty, with_fault(clip("h264_flv"), "raise"))  # its child is replaced too
    decode(faulty, clip("h264_one_frame"))
    failure(faulty, with_fault(clip("h264_flv"), "segfault"))
    start = time.monotonic()
    decode(faulty, clip("h264_one_frame"))
    assert time.monotonic() - start < 0.5  # 10 ms on a quiet machine


def test_an_empty_or_too_large_file_never_reaches_the_child():
    with SandboxedDecoder(REQUEST, limits=DecodeLimits(max_bytes=1000)) as decoder:
        assert failure(decoder, b"").code == "empty_file"
        error = failure(decoder, bytes(1001))
    assert (error.status, error.code) == (Status.TOO_LARGE, "max_bytes")


def test_time_allowed_grows_with_the_pixels_up_to_the_limit():
    limits = DecodeLimits(timeout_s=60)
    assert allowed_seconds(pixels=0, limits=limits) == 10
    assert allowed_seconds(pixels=340 * 256 * 300, limits=limits) == pytest.approx(23.1, abs=0.1)
    assert allowed_seconds(pixels=1920 * 1080 * 1800, limits=limits) == 60
    assert allowed_seconds(pixels=0, limits=DecodeLimits(timeout_s=1)) == 1


@pytest.mark.parametrize("backend", ["nonsense", "no_such_module:Decoder", "tests.video.faulty_decoder:Missing"])
def test_an_unknown_backend_is_an_error_of_the_job(backend):
    with SandboxedDecoder(REQUEST, limits=LIMITS, backend=backend) as decoder, pytest.raises(ConfigError):
        decode(decoder, clip("h264"))


def test_the_child_sees_no_credentials(monkeypatch, faulty):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    others = set(psutil.Process().children(recursive=True))  # a store that another test started may hold its own keys
    with SandboxedDecoder(REQUEST, limits=LIMITS) as decoder:
        decode(decoder, clip("h264"))
        environments = [p.environ() for p in set(psutil.Process().children(recursive=True)) - others]
    assert environments
    assert not any("AWS_SECRET_ACCESS_KEY" in e for e in environments)


def test_close_leaves_no_process_and_no_file_open():
    me = psutil.Process()
    before, files = set(me.children(recursive=True)), me.num_fds()
    decoder = SandboxedDecoder(REQUEST, limits=LIMITS)
    decode(decoder, clip("h264"))
    decoder.close()
    del decoder
    assert wait_until(lambda: set(me.children(recursive=True)) == before)
    assert me.num_fds() == files


@pytest.mark.parametrize("victim", ["nursery", "child"])
def test_a_decoder_process_killed_from_outside_costs_no_clip(victim):
    with SandboxedDecoder(REQUEST, limits=DecodeLimits()) as decoder:
        before = set(psutil.Process().children(recursive=True))
        with SandboxedDecoder(REQUEST, limits=DecodeLimits()) as other:
            decode(other, clip("h264"))
            nursery = next(p for p in psutil.Process().children() if p not in before)
            (nursery if victim == "nursery" else nursery.children()[0]).kill()
            time.sleep(0.3)
            decode(other, clip("h264"))
        decode(decoder, clip("h264"))


SCRIPT = """
    from vidcls_batch.types import DecodeLimits, FrameRequest, Sampling
    from vidcls_batch.video.sandbox import SandboxedDecoder
    import numpy as np, sys, time
    print("main runs")
    decoder = SandboxedDecoder(FrameRequest((Sampling(4),), 32, 32), limits=DecodeLimits())
    out = np.zeros((4, 32, 32, 3), np.uint8)
    decoder.decode(open(sys.argv[1], "rb").read(), out=out)
    print("decoded", flush=True)
    if len(sys.argv) > 2:
        time.sleep(60)
"""


@pytest.fixture
def script(tmp_path: Path) -> list[str]:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "clip.mp4").write_bytes(clip("h264"))
    return [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "clip.mp4")]


def test_a_script_without_a_main_guard_runs_once_and_ends_clean(script):
    result = subprocess.run(script, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split("\n") == ["main runs", "decoded", ""]
    assert result.stderr == ""


def test_the_child_ends_with_its_parent_even_when_that_is_killed(script):
    segments = set(Path("/dev/shm").iterdir())
    parent = subprocess.Popen([*script, "stay"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "main runs\n"
    assert parent.stdout.readline() == "decoded\n"
    family = psutil.Process(parent.pid).children(recursive=True)
    assert len(family) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    assert set(Path("/dev/shm").iterdir()) <= segments


@pytest.mark.slow
def test_memory_files_and_threads_stay_flat_over_thousands_of_clips():
    sources = [clip(n) for n in ("h264_one_frame", "h264_two_frames", "gif", "h264_truncated_ts")] + [b"garbage"]
    me = psutil.Process()
    others = set(me.children())
    with SandboxedDecoder(REQUEST, limits=DecodeLimits()) as decoder:
        (nursery,) = set(me.children()) - others

        def state() -> tuple[int, int, int, int]:
            child = nursery.children()[0]
            rss = me.memory_info().rss + child.memory_info().rss
            return rss >> 20, me.num_fds(), me.num_threads(), child.num_fds()

        states = []
        for count in range(5000):
            try:
                decode(decoder, sources[count % len(sources)])
            except ClipError:
                assert sources[count % len(sources)] == b"garbage"
            if count in (500, 4900):
                states.append(state())
    (rss, *counts), (rss_later, *counts_later) = states
    assert counts_later == counts
    assert rss_later - rss < 20
