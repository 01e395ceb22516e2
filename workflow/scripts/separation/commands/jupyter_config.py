"""Configuration of the notebook server, read by Jupyter.

The password's hash comes from the environment: any user of the machine could read it on a command line.
"""

import os

c = get_config()  # noqa: F821  (defined by Jupyter)
password = os.environ.get("JUPYTER_PASSWORD_HASH", "")
c.ServerApp.ip = os.environ.get("JUPYTER_HOST_IP") or "127.0.0.1"
c.ServerApp.port = int(os.environ.get("JUPYTER_HOST_PORT") or 8890)
c.ServerApp.port_retries = 0
c.ServerApp.open_browser = False
c.ServerApp.allow_root = True
if password:
    c.PasswordIdentityProvider.hashed_password = password
    c.IdentityProvider.token = ""
