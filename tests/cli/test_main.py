"""A user's mistake ends with a message and exit code 2, never with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.cli.main import OLD_VERBS, TASKS, VERBS, build_parser, main


def test_the_list_of_verbs_imports_nothing_that_takes_long() -> None:
    code = "import sys\nfrom semi_nnunet.cli.main import main\ntry: main(['--help'])\n"
    code += "except SystemExit: print({'torch', 'nnunetv2', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert all(verb in done.stdout for verb in VERBS)
    assert done.stdout.endswith("set()\n")


def test_the_help_of_no_verb_waits_for_torch() -> None:
    code = "import sys\nfrom semi_nnunet.cli.main import VERBS, build_parser\n"
    code += "for verb in VERBS:\n    build_parser(verb).format_help()\n"
    code += "    assert 'torch' not in sys.modules, verb"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("line", "first", "also"),
    [
        ("semi_nnunet com", "compare", set()),
        ("semi_nnunet pre", "preprocess", {"predict"}),
        ("semi_nnunet compare --va", "--values", set()),
        ("semi_nnunet crossval --launcher ", "local", {"slurm", "ray"}),
        ("semi_nnunet nonsense --v", "--version", set()),
    ],
)
def test_the_shell_completes_what_is_typed(tmp_path, line, first, also) -> None:
    pytest.importorskip("argcomplete")
    told = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "|", "_ARGCOMPLETE_SHELL": "bash",
        "COMP_LINE": line, "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "out"),
    }  # fmt: skip
    words = [sys.executable, "-m", "semi_nnunet"]
    done = subprocess.run(words, env=os.environ | told, capture_output=True, text=True)
    offered = {word.strip() for word in (tmp_path / "out").read_text().split("|")}
    assert done.returncode == 0 and not done.stderr
    assert offered == {first, *also}


WORDS = {  # the short options, and what they name in every verb
    "-d": {"dataset", "converted", "new_id"},
    "-o": {"out", "new_id", "split"},
    "-i": {"images", "predictions"},
    "-r": {"references"},
    "-m": {"model", "models", "base"},
    "-tr": {"trainer", "trainers"},
    "-p": {"plans"},
    "-c": {"configuration", "configurations"},
    "-f": {"fold", "folds"},
    "-np": {"processes", "num_processes"},
    "-device": {"device"},
    "-num_gpus": {"gpus"},
    "-chk": {"checkpoint"},
    "-pl": {"planner"},
    "-pretrained_weights": {"pretrained_weights"},
    "-h": {"help"},
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_one_spelling_for_one_thing(verb: str) -> None:
    verbs = next(one for one in build_parser(verb)._actions if one.dest == "verb").choices
    named = {thing for things in WORDS.values() for thing in things}
    for option in verbs[verb]._actions:
        short = [word for word in option.option_strings if not word.startswith("--")]
        assert all(option.dest in WORDS[word] for word in short), (verb, short)
        is_named = option.option_strings and option.dest in named
        assert short or not is_named, f"{verb} {option.option_strings} lacks its short spelling"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "/data/a.nii.gz"), "/data/a.nii.gz: No space left"),
        (PermissionError(13, "Permission denied", "/data"), "/data: Permission denied"),
        (OSError(36, "File name too long", "x"), "x: File name too long"),
        (OSError(28, "No space left on device"), "error: No space left on device. Fix: free"),
    ],
)
def test_a_full_or_closed_disk_is_said_without_a_traceback(error, says, monkeypatch, capsys):
    def fails(*_):
        raise error

    monkeypatch.setattr("semi_nnunet.cli.doctor.run", fails)
    assert main(["doctor"]) == 2
    assert says in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    code = "import sys\nfrom semi_nnunet.cli import main, trainers\n"
    code += "def run(args):\n    for _ in range(100000): print('a line')\n"
    code += "trainers.run = run\nsys.exit(main.main(['trainers']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr and process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141


def test_what_the_terminal_cannot_show_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from semi_nnunet.cli import doctor, main\n"
    code += "doctor.run = lambda _: print('gain \N{MINUS SIGN}1')\nraise SystemExit(main.main())\n"
    words = [sys.executable, "-c", code, "doctor"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gain ?1\n", "")


def test_another_pipe_that_broke_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("semi_nnunet.cli.doctor.run", fails)
    with pytest.raises(BrokenPipeError):
        main(["doctor"])


def test_a_closed_output_is_no_fault() -> None:
    code = "import sys; from semi_nnunet.cli.main import main; sys.exit(main(['trainers']))"
    shell = f'"{sys.executable}" -c "{code}" >&-'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", [*VERBS, *OLD_VERBS])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"semi_nnunet {verb}" in capsys.readouterr().out


def test_which_seed_is_not_taken_for_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    for command, other in [
        ("crossval -d 901 -c 2d -tr SemiCPSTrainer", "--seed 1"),
        ("ensemble -d 901 -o out", "--seeds 3"),
    ]:
        with pytest.raises(SystemExit):
            main([*command.split(), *other.split()])
        said = capsys.readouterr().err
        assert f"unrecognized arguments: {other}. Fix: semi_nnunet {command.split()[0]} --" in said


def test_what_comes_after_the_options_and_should_be_before_is_explained(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["run", "plans/la_4.json", "-d", "501", "-o", "601", "LA"])
    assert end.value.code == 2
    assert "arguments: LA. Fix: what is no option comes first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("preprocess -d 777", "none"),
        ("preprocess -d pancreas", "-d 42"),
        ("preprocess -d Dataset777_Absent", "does not exist"),
        ("preprocess -d 901 -np 1 -pl Nobody", "no planner 'Nobody'"),
        ("preprocess -d 901 -np 1 -c 4d", "no configuration 4d"),
        ("split -d 901 -o 902", "--labelled N"),
        ("split -d 901 -o 902 --labelled 9", "between 1 and 5"),
        ("split -d 901 -o 902 --list absent.txt", "does not exist"),
        ("plan -d 901 -p Absent", "Fix: choose -p from "),
        ("plan -d 901 --set seed", "KEY=VALUE"),
        ("plan -d 901 --set seed=1 seed.x=2", "'seed'"),
        ("plan -d 901 --set sed=1", "did you mean 'seed'"),
        ("plan -d 901 --set NoTrainer.seed=1", "no trainer NoTrainer"),
        ("plan -d 901 --set epochs=0", "must be in"),
        ("plan -d 901 --budget soon", "--budget"),
        ("plan -d 901 --budget 1 --device nowhere", "--device nowhere"),
        ("plan -d 901 -c 4d", "no configuration 4d"),
        ("plan -d 901 --name my__plans", "no '__'"),
        ("plan -d 901 --name dataset", "dataset.json is another file of the data set"),
        ("plan -d 901 --name my_plans_", "no '_' at its end"),
        ("plan -d 901 --name elsewhere/my_plans", "no path separators"),
        ("report -d 901 -o .", "but it is a folder"),
        ("export -d 901 -c 2d -tr SemiMeanTeacherTrainer -o out", "no trained model: looked for"),
    ],
)
def test_a_mistake_is_explained(
    command: str,
    says: str,
    phantom: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (phantom.preprocessed / "nnUNetPlans.json").read_bytes()
    assert main(command.split()) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"semi_nnunet {command.split()[0]}: error: ")
    assert says in message and "Traceback" not in message
    assert (phantom.preprocessed / "nnUNetPlans.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_unset_variables_are_all_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("raw", "preprocessed"):
        monkeypatch.delenv(f"nnUNet_{name}")
    assert main(["preprocess", "-d", "1"]) == 2
    message = capsys.readouterr().err
    assert "export nnUNet_raw" in message and "export nnUNet_preprocessed" in message


def test_an_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("semi_nnunet.cli.trainers.run", interrupted)
    assert main(["trainers"]) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["predict", "tune", "package", "convert"])
def test_a_verb_that_keeps_nothing_says_so_when_it_is_interrupted(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"semi_nnunet.cli.{verb}.run", interrupted)
    words = {
        "predict": ["-m", "M", "-i", "I", "-o", "O"], "tune": ["-m", "M"],
        "package": ["-m", "M", "-o", "O"], "convert": ["acdc", "SRC", "-d", "1"],
    }  # fmt: skip
    assert main([verb, *words[verb]]) == 130
    assert "interrupted; the same command starts anew" in capsys.readouterr().err


def test_verbs_are_listed_once_by_task_and_old_ones_not(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.removesuffix(":") in TASKS] == [f"{t}:" for t in TASKS]
    listed = [line.split("  ")[0] for line in lines if line.split("  ")[0] in (*VERBS, *OLD_VERBS)]
    assert listed == list(VERBS)


def test_it_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "semi_nnunet", "--version"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("semi_nnunet ")


def test_the_list_of_converters_comes_without_importing_one() -> None:
    code = "import sys\nfrom semi_nnunet.cli.main import main\ntry: main(['convert', '--help'])\n"
    code += (
        "except SystemExit: print([m for m in sys.modules if m.startswith('semi_nnunet.datas')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "whole heart, from CT to MR" in done.stdout
    assert done.stdout.endswith("['semi_nnunet.datasets', 'semi_nnunet.datasets.converters']\n")


@pytest.mark.parametrize("words", [["trainers"], ["register", "--print"]])
def test_the_folder_of_the_trainers_is_printed_and_nothing_else(words, capsys) -> None:
    assert main(words) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (Path(line) / "semi_nnunet_trainers.py").is_file()
