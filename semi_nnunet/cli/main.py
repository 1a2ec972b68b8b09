"""``semi_nnunet VERB ...``"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import semi_nnunet
from semi_nnunet.util.errors import UserError, disk_error_message
from semi_nnunet.util.messages import show_messages

TASKS = {
    "set up": {
        "doctor": "say what is set up, what is missing and how to mend it",
        "register": "let nnU-Net's own commands find our trainers in every shell",
        "demo": "show on a phantom data set that unlabelled images help",
    },
    "prepare": {
        "convert": "make a raw data set from the files of a published benchmark",
        "split": "make a benchmark data set with hidden labels from a labelled one",
        "preprocess": "verify, plan and preprocess a data set with its unlabelled images",
        "plan": "write the semi-supervised settings into the plans, with the reason of each",
    },
    "train": {
        "auto": "go from a raw data set to the best model and its proof, in a budget of hours",
        "train": "train one fold as nnUNetv2_train does, after a look at what would stop it",
        "crossval": "train and measure trainers x configurations x folds x seeds as a list of jobs",
        "status": "say what is done, running and begun of a data set's trainings",
        "benchmark": "measure what a training step of each trainer costs on this machine",
        "recipes": "list the recipes of published experiments",
        "run": "follow the recipe of a published experiment, from its files to the report",
    },
    "predict and label": {
        "predict": "predict images as nnUNetv2_predict does, faster and in little memory",
        "pseudo-label": "label images that nobody labelled, with trained models",
        "select": "choose the unlabelled images to train on, by how sure models are of them",
        "distil": "make a training set of labelled and pseudo-labelled cases",
    },
    "judge": {
        "evaluate": "measure predictions: overlap, surfaces, volumes of every case and class",
        "compare": "say whether trainers beat the baseline: paired, over folds and seeds",
        "ensemble": "average the predictions of trainers, configurations, folds and seeds",
        "report": "write the answer, tables, curves and cases as one HTML file to open offline",
    },
    "ship": {
        "slim": "distil a trained model into a small network that keeps to a goal of speed",
        "tune": "find out which mirrored images are worth their time when a model predicts",
        "export": "turn a trained model into one that stock nnU-Net runs",
        "package": "make a model a challenge submission: a folder to build and run offline",
        "efficiency": "measure what a submission costs a case, as FLARE does",
        "install": "install a model from a zip, without running or overwriting anything",
    },
}
VERBS = {name: summary for verbs in TASKS.values() for name, summary in verbs.items()}
ANEW = (  # these keep nothing of what they had done when they are interrupted
    "demo", "convert", "predict", "tune", "package", "benchmark", "evaluate", "compare", "report",
)  # fmt: skip
COMPLETING = "_ARGCOMPLETE"  # set by the shell's function of argcomplete
OLD_VERBS = ("trainers",)  # understood, but not listed: semi_nnunet register --print


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser of all verbs; only the file of ``verb`` is imported, the others are listed."""
    parser = argparse.ArgumentParser(
        prog="semi_nnunet",
        description=semi_nnunet.__doc__.partition("\n")[0] if semi_nnunet.__doc__ else None,
        usage="semi_nnunet [-h] [--version] VERB ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"semi_nnunet {semi_nnunet.__version__}"
    )
    verbs = parser.add_subparsers(
        dest="verb",
        metavar="VERB",
        prog=parser.prog,
        required=True,
        title="verbs (semi_nnunet VERB --help says more)",
        description=verbs_by_task(),
        help=argparse.SUPPRESS,
    )
    for name in (*VERBS, *OLD_VERBS):
        sub = verbs.add_parser(
            name,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # --seed (which) is not --seeds (how many)
        )
        if name == verb:
            module = importlib.import_module(f"semi_nnunet.cli.{name.replace('-', '_')}")
            sub.description = module.__doc__
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def verb_of(words: Sequence[str]) -> str | None:
    """The verb of a command line, None if there is none yet."""
    return next((word for word in words if not word.startswith("-")), None)


def complete() -> NoReturn:
    """Tell the shell how the line that is being typed may go on, and exit."""
    import argcomplete

    line, at = os.environ.get("COMP_LINE", ""), int(os.environ.get("COMP_POINT", 0))
    typed = line[:at].split()[1:]
    whole = typed if line[:at].endswith(" ") else typed[:-1]  # the last word may become another
    argcomplete.autocomplete(build_parser(verb_of(whole)), always_complete_options="long")
    raise SystemExit(0)  # the line was no command of ours


def verbs_by_task() -> str:
    """What each verb does, in groups."""
    width = max(map(len, VERBS))
    lines = []
    for task, verbs in TASKS.items():
        lines += [f"{task}:", *(f"  {name:<{width}}  {what}" for name, what in verbs.items())]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; a user's mistake ends with a message and exit code 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if COMPLETING in os.environ:
        complete()
    parser = build_parser(verb_of(argv))
    args, rest = parser.parse_known_args(argv)
    if rest:
        fix = f"semi_nnunet {args.verb} --help lists the options"
        if not rest[0].startswith("-"):  # argparse takes what may be left out with what is before
            fix = f"what is no option comes first: semi_nnunet {args.verb} --help"
        parser.error(f"unrecognized arguments: {' '.join(rest)}. Fix: {fix}")
    for stream in (sys.stdout, sys.stderr):  # a terminal without a true minus still gets the rest
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    show_messages()
    try:
        code = int(args.run(args) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UserError as error:
        said_before = getattr(error, "exit_code", None)
        if said_before is not None:
            return int(said_before)
        print(f"semi_nnunet {args.verb}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        return 128 + signal.SIGPIPE
    except OSError as error:
        said = disk_error_message(error)
        if said is None:
            raise
        print(f"semi_nnunet {args.verb}: error: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        then = "starts anew" if args.verb in ANEW else "goes on"
        print(f"semi_nnunet {args.verb}: interrupted; the same command {then}", file=sys.stderr)
        return 130


def reader_is_gone() -> bool:
    """Whether who read what is printed has seen enough, such as head; then print to nobody."""
    try:
        out = sys.stdout.fileno()
    except (AttributeError, OSError):  # there is none, or it is no file
        return False
    poll = select.poll()
    poll.register(out, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return gone


if __name__ == "__main__":
    sys.exit(main())
