"""What tests of notebook servers share."""

import subprocess


def read_until_running(server: subprocess.Popen) -> list[str]:
    """The lines on standard error up to the one that says where the server is; all of them where it ends before."""
    said = []
    for line in server.stderr:
        said.append(line)
        if "is running at" in line:
            break
    return said
