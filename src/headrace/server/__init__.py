"""The default server: find one, start it on a private socket, share it, and stop it with its last user."""

from headrace.server.binary import ServerBinary, check_server_version, find_server
from headrace.server.private import PrivateServer, start_private_server
from headrace.server.use import ServerUse, ensure_server

__all__ = [
    "PrivateServer",
    "ServerBinary",
    "ServerUse",
    "check_server_version",
    "ensure_server",
    "find_server",
    "start_private_server",
]
