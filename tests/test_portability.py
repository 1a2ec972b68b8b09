"""Nothing that only POSIX has is used without a check, so that Windows users can train."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "semi_nnunet"
MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
NAMES = {
    "os": {
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "WEXITSTATUS", "WIFEXITED",
        "WIFSIGNALED", "WNOHANG", "WTERMSIG", "chown", "chroot", "ctermid", "fchdir", "fchmod",
        "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups", "getloadavg",
        "getpgid", "getpgrp", "getpriority", "getsid", "getuid", "initgroups", "killpg", "lchown",
        "lockf", "mkfifo", "mknod", "nice", "openpty", "pidfd_open", "pread", "preadv", "pwrite",
        "pwritev", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sched_yield",
        "sendfile", "setegid", "seteuid", "setgid", "setgroups", "setpgid", "setpriority", "setsid",
        "setuid", "statvfs", "sync", "sysconf", "tcgetpgrp", "tcsetpgrp", "ttyname", "uname",
        "wait", "wait3", "wait4", "waitid",
    },
    "signal": {
        "ITIMER_REAL", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE",
        "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGWINCH",
        "SIG_BLOCK", "SIG_SETMASK", "SIG_UNBLOCK", "alarm", "pause", "pthread_kill",
        "pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigtimedwait", "sigwait",
    },
    "select": {"POLLERR", "POLLHUP", "POLLIN", "POLLOUT", "epoll", "kqueue", "poll"},
    "socket": {"AF_UNIX"},
    "time": {"pthread_getcpuclockid", "tzset"},
}  # fmt: skip
GUARDS = {"hasattr", "getattr", "name", "platform", "system"}  # as in os.name, sys.platform


def find_unguarded(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of each POSIX-only use outside a check of the system.

    A check is an ``if`` that asks for the attribute or the system, also one that returns or raises
    before the use, or a ``try`` or ``suppress`` for the error of a missing module or attribute.
    """
    yield from _walk(tree, is_guarded=False)


def _walk(node: ast.AST, is_guarded: bool) -> Iterator[tuple[int, str]]:
    if not is_guarded:
        yield from _uses(node)
    for field, value in ast.iter_fields(node):
        is_body = field in ("body", "orelse")
        inner = is_guarded or (is_body and _is_guard(node))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, inner)
                inner = inner or _leaves_other_systems(child)


def _leaves_other_systems(node: ast.AST) -> bool:
    is_check = isinstance(node, ast.If) and _is_guard(node)
    return is_check and isinstance(node.body[-1], (ast.Return, ast.Raise))


def _uses(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names if alias.name in MODULES)
    elif isinstance(node, ast.ImportFrom):
        names = {alias.name for alias in node.names} & NAMES.get(node.module or "", set())
        yield from ((node.lineno, f"{node.module}.{name}") for name in names)
        if node.module in MODULES:
            yield node.lineno, node.module
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name = f"{node.value.id}.{node.attr}"
        yield from [(node.lineno, name)] if node.attr in NAMES.get(node.value.id, ()) else ()


def find_probing_kills(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each ``os.kill(process, 0)``, which interrupts the process on Windows."""
    for node in ast.walk(tree):
        is_kill = isinstance(node, ast.Call) and ast.unparse(node.func) == "os.kill"
        if is_kill and ast.unparse(node.args[1]) == "0":
            yield node.lineno


def _is_guard(node: ast.AST) -> bool:
    if isinstance(node, (ast.If, ast.IfExp)):
        tested = {n.attr for n in ast.walk(node.test) if isinstance(n, ast.Attribute)}
        tested |= {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
        return bool(tested & GUARDS)
    caught: list[ast.AST | None] = []
    if isinstance(node, ast.Try):
        caught = [handler.type for handler in node.handlers]
    elif isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        caught = [c for c in calls if isinstance(c, ast.Call) and "suppress" in ast.dump(c.func)]
    names = {n.id for c in caught if c is not None for n in ast.walk(c) if isinstance(n, ast.Name)}
    return bool(names & {"ImportError", "ModuleNotFoundError", "AttributeError"})


@pytest.mark.parametrize(
    ("code", "is_guarded"),
    [
        ("import fcntl", False),
        ("def f():\n import resource", False),
        ("from os import killpg", False),
        ("os.register_at_fork(before=f)", False),
        ("if ready:\n os.killpg(1, 2)", False),
        ("try:\n import fcntl\nexcept OSError:\n pass", False),
        ("number = 128 + signal.SIGPIPE", False),
        ("try:\n import fcntl\nexcept ImportError:\n fcntl = None", True),
        ("with suppress(ImportError):\n import resource", True),
        ("if hasattr(os, 'killpg'):\n os.killpg(1, 2)", True),
        ("x = os.getuid() if os.name == 'posix' else 0", True),
        ("if sys.platform != 'win32':\n os.fork()", True),
        ("def f():\n if not hasattr(os, 'fork'):\n  return\n os.fork()", True),
        ("def f():\n if not hasattr(os, 'fork'):\n  log()\n os.fork()", False),
        ("number = getattr(signal, 'SIGUSR1', None)", True),
    ],
)
def test_the_search_sees_what_is_guarded(code: str, is_guarded: bool) -> None:
    assert (not list(find_unguarded(ast.parse(code)))) == is_guarded


def test_what_only_posix_has_is_used_after_a_check() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line}": name
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, name in find_unguarded(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_no_process_is_killed_to_see_whether_it_runs() -> None:
    assert [*find_probing_kills(ast.parse("os.kill(int(number), 0)"))] == [1]
    for path in PACKAGE.rglob("*.py"):
        assert not [*find_probing_kills(ast.parse(path.read_text(encoding="utf-8")))], path
