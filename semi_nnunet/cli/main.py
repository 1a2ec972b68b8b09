"""``semi_nnunet VERB ...``: the command line, generated from the functions in ``verbs``."""

from __future__ import annotations

import importlib
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import cyclopts

import semi_nnunet
from semi_nnunet.cli.commands import command_of, help_text
from semi_nnunet.datasets.converters import CONVERTERS
from semi_nnunet.util.errors import UserError, disk_error_message
from semi_nnunet.util.messages import show_messages
from semi_nnunet.util.names import unknown

TASKS = {
    "start here": (
        "doctor", "preprocess", "train", "auto", "predict", "evaluate", "compare", "report",
        "export",
    ),
    "set up": ("register", "demo", "install"),
    "prepare": ("convert", "split", "plan"),
    "train": ("crossval", "status", "benchmark", "run"),
    "label": ("next", "pseudo-label", "select", "accept", "audit", "pseudo-dataset"),
    "judge": ("ensemble", "efficiency"),
    "deploy": ("distil", "tune", "package"),
}  # fmt: skip
EXAMPLES = """For example, for data set 42 with unlabelled images in imagesUn:

    semi_nnunet doctor -d 42
    semi_nnunet preprocess -d 42
    semi_nnunet train 42 3d_fullres 0
    semi_nnunet predict -d 42 -i IMAGES -o PREDICTIONS
    semi_nnunet auto -d 42 --hours 8        (all of it, with the best method)
"""
VERBS = tuple(verb for verbs in TASKS.values() for verb in verbs)
CLOSED_PIPE = 128 + 13  # exit code of a shell for SIGPIPE, which Windows does not have
NOT_CONTINUED = {  # these start again when they were interrupted
    "demo", "convert", "predict", "tune", "package", "benchmark", "evaluate", "compare", "report",
    "audit",
}  # fmt: skip


def verb_module(verb: str) -> ModuleType:
    """Return the module of a verb."""
    return importlib.import_module(f"semi_nnunet.verbs.{verb.replace('-', '_')}")


def verb_function(verb: str) -> Callable[..., Any]:
    """Return the function of a verb, which is also the one of ``import semi_nnunet``."""
    function: Callable[..., Any] = getattr(verb_module(verb), verb.replace("-", "_"))
    return function


def build_app(words: Sequence[str] = ()) -> cyclopts.App:
    """Return the command line of all verbs, for these words."""
    app = cyclopts.App(
        name="semi_nnunet",
        help=(semi_nnunet.__doc__ or "").partition("\n")[0].replace("``", ""),
        help_epilogue=EXAMPLES,
        group_commands=cyclopts.Group("this program", sort_key=len(TASKS)),
        version=f"semi_nnunet {semi_nnunet.__version__}",
        help_format="plaintext",
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for order, (task, verbs) in enumerate(TASKS.items()):
        group = cyclopts.Group(task, sort_key=order)
        for place, verb in enumerate(verbs):
            if verb == "convert":
                app.command(_converter_app(group, place, words))
            else:
                function = verb_function(verb)
                app.command(
                    command_of(function), name=verb, group=group, help=help_text(function),
                    help_epilogue="", sort_key=place,
                )  # fmt: skip
    app.register_install_completion_command()
    return app


def _converter_app(group: cyclopts.Group, place: int, words: Sequence[str]) -> cyclopts.App:
    """Return the verb whose options depend on its first word: a command for each converter.

    Only the module of the named one is imported.
    """
    from semi_nnunet.datasets.converters import CONVERTERS
    from semi_nnunet.verbs.convert import convert, converter_function

    app = cyclopts.App(
        name="convert", group=group, sort_key=place, help=help_text(convert), help_epilogue="",
        version_flags=(),
    )  # fmt: skip
    is_asked = verb_of(words) == "convert"
    named = next((word for word in words if is_asked and word in CONVERTERS), None)
    for name, summary in CONVERTERS.items():
        if name == named:
            function = converter_function(name)
            app.command(command_of(function), name=name, help=help_text(function))
        else:
            app.command(lambda: None, name=name, help=summary)
    return app


def parse(words: Sequence[str]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the function of a command line and its arguments, without calling it.

    Args:
        words: After ``semi_nnunet``.

    Raises:
        UserError: the words are wrong.
    """
    verb = verb_of(words)
    try:
        function, bound, _ = build_app(words).parse_args(
            list(words), print_error=False, exit_on_error=False
        )
    except cyclopts.CycloptsError as error:
        raise usage_error(error, verb) from error
    return function, dict(bound.arguments)


def usage_error(error: cyclopts.CycloptsError, verb: str | None) -> UserError:
    """Return the message for wrong words."""
    if isinstance(error, cyclopts.UnknownCommandError) and error.unused_tokens:
        kind, known = ("converter", (*CONVERTERS,)) if verb == "convert" else ("verb", VERBS)
        (problem,) = unknown(kind, error.unused_tokens[:1], known)
        return UserError(f"{problem.where} {problem.what}", fix=problem.fix)
    fix = f"semi_nnunet {verb} --help lists the options"
    if verb not in VERBS:
        fix = "semi_nnunet --help lists the verbs"
    return UserError(str(error).strip().rstrip(".?,"), fix=fix)


def verb_of(words: Sequence[str]) -> str | None:
    """Return the verb of a command line, or None if it has none yet."""
    return next((word for word in words if not word.startswith("-")), None)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; a user's mistake ends with a message and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = verb_of(words)
    for stream in (sys.stdout, sys.stderr):  # a terminal without a true minus still gets the rest
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    show_messages()
    prefix = f"semi_nnunet {verb}" if verb in VERBS else "semi_nnunet"
    try:
        result = build_app(words)(words, print_error=False, exit_on_error=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        return int(verb in VERBS and result_has_failed(str(verb), result))
    except cyclopts.CycloptsError as error:
        print(f"{prefix}: error: {usage_error(error, verb)}", file=sys.stderr)
        return 2
    except UserError as error:
        exit_code = getattr(error, "exit_code", None)  # its message was printed before
        if exit_code is not None:
            return int(exit_code)
        print(f"{prefix}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not reader_has_left():
            raise
        return CLOSED_PIPE
    except OSError as error:
        message = disk_error_message(error)
        if message is None:
            raise
        print(f"{prefix}: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        outcome = "starts again" if verb in NOT_CONTINUED else "continues"
        print(f"{prefix}: interrupted; the same command {outcome}", file=sys.stderr)
        return 130


def result_has_failed(verb: str, result: Any) -> bool:
    """Return whether a verb that raised no error has nevertheless not done everything."""
    has_failed = getattr(verb_module(verb), "has_failed", None)
    return result is not None and has_failed is not None and bool(has_failed(result))


def reader_has_left() -> bool:
    """Return True, and discard further output, if the reader of stdout has closed the pipe."""
    if not hasattr(select, "poll"):  # Windows
        return False
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # there is no stdout, or it is not a file
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    has_left = any(event & select.POLLERR for _, event in poll.poll(0))
    if has_left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return has_left


if __name__ == "__main__":
    sys.exit(main())
