import io

from vidcls_batch.progress import ConsoleProgress, ProgressLine


def test_line_shows_done_failed_by_type_rate_and_eta():
    now = iter([0.0, 10.0, 10.0, 10.0, 10.0])
    line = ProgressLine(total=1000, done=400, clock=lambda: next(now))
    line.add({"ok": 95, "timeout": 2})
    line.add({"ok": 0, "decode_error": 3})
    assert str(line) == "500/1,000 clips (50%) · ok 95 · decode_error 3 · timeout 2 · 10.0 clips/s · ETA 50s"


def test_without_a_terminal_lines_are_plain_text():
    stream = io.StringIO()
    with ConsoleProgress(stream) as progress:
        progress.say("Planning [x] ...")
        progress.start(total=2, done=0)
        progress.add({"ok": 2})
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "Planning [x] ..." in text
    assert "2/2 clips (100%)" in text


def test_empty_plan_does_not_divide_by_zero():
    assert "0/0" in str(ProgressLine(total=0, done=0))
