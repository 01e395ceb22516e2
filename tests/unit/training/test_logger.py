"""What a training run prints on the terminal of the workflow."""

import time

from separation.training.logger import TerminalLine


def test_the_terminal_gets_at_most_one_line_per_half_minute(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    line = TerminalLine("dpcl-toy")
    for now[0] in (1.0, 31.0, 32.0, 62.0):
        line.print(f"at {now[0]:g}")
    assert capsys.readouterr().err.splitlines() == ["dpcl-toy: at 31", "dpcl-toy: at 62"]
