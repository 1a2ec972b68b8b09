"""The client of ``tests.warm``: SOCKET FILES CODE WORD... runs as a fork of the server.

FILES are numbers of open files other than 0, 1 and 2; they have the same numbers in the fork.
"""

import array
import json
import os
import signal
import socket
import sys

FORWARDED = [
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
]  # fmt: skip

path, numbers, code, *words = sys.argv[1:]
files = [0, 1, 2, *map(int, filter(None, numbers.split(",")))]
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
ignored = [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
request = {
    "code": code, "words": words, "environment": dict(os.environ), "folder": os.getcwd(),
    "ignored": ignored, "files": files,
}  # fmt: skip
text = json.dumps(request).encode()
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
connection.sendmsg([len(text).to_bytes(8, "big")], rights)
connection.sendall(text)
for number in FORWARDED:
    if number not in ignored:
        signal.signal(number, lambda number, frame: connection.send(bytes([number])))
status = int.from_bytes(connection.recv(2), "big")
if number := os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0:
    signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    os.kill(os.getpid(), number)
os._exit(os.WEXITSTATUS(status))
