"""Helper for tests of notebook servers."""

import subprocess


def read_until_running(server: subprocess.Popen) -> list[str]:
    """The lines on standard error up to the one with the server's address; all of them if it ends before."""
    lines = []
    for line in server.stderr:
        lines.append(line)
        if "is running at" in line:
            break
    return lines
