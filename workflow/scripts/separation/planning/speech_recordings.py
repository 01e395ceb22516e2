"""Check, once per data directory, whether recorded speech from Debian's packages can be downloaded."""

from __future__ import annotations

import re
import shutil
import subprocess
import urllib.error
import urllib.request

from separation.experiment.config import Settings
from separation.files.atomic import write_json
from separation.files.layout import debian_packages, downloads_folder

#: file in the data directory: the kind of recordings in the toy speech, and the reason
RECORDINGS = "toy_speech.json"
_SECONDS = 8


def packages_unreachable_reason(settings: Settings) -> str:
    """Why Debian's packages cannot be downloaded now, "" if they can; stored for all jobs and later runs.

    With `offline`, nothing is stored.
    """
    why = packages_unavailable_reason(settings)
    if settings.offline:
        return why
    if not why and not debian_packages(downloads_folder(settings.data)).is_dir():
        why = _cause()
    write_json(settings.data / RECORDINGS, {"recordings": "synthetic" if why else "debian", "why": why})
    return why


def packages_unavailable_reason(settings: Settings) -> str:
    """Why Debian's packages are unavailable here, checked without the network; "" if no reason is found."""
    if debian_packages(downloads_folder(settings.data)).is_dir():
        return ""
    if settings.offline:
        return "offline is set"
    missing = [name for name in ("apt-get", "dpkg-deb") if not shutil.which(name)]
    return f"this machine has no {missing[0]}" if missing else ""


def _cause() -> str:
    """Why the first package server of apt is unreachable, or ""."""
    try:
        # the addresses that an update would download; nothing is downloaded here
        printed = subprocess.run(
            ["apt-get", "--print-uris", "update"], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"apt-get does not work ({type(error).__name__})"
    addresses = re.findall(r"^'(https?://[^']+)'", printed.stdout, flags=re.MULTILINE)
    if not addresses:
        return "no package server is configured for apt"
    try:
        request = urllib.request.Request(addresses[0], method="HEAD")
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""  # the server responds
    except (OSError, ValueError) as error:
        return f"apt's server is unreachable ({getattr(error, 'reason', None) or error})"
