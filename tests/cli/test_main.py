"""A user's mistake ends with a message and exit code 2, never with a traceback."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import semi_nnunet
from semi_nnunet.cli.main import TASKS, VERBS, build_app, main, parse, verb_function


def test_the_list_of_verbs_imports_nothing_that_takes_long() -> None:
    code = "import sys\nfrom semi_nnunet.cli.main import main\nmain(['--help'])\n"
    code += "print({'torch', 'nnunetv2', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert all(verb in done.stdout for verb in VERBS)
    assert done.stdout.endswith("set()\n")


def test_the_help_of_no_verb_waits_for_torch() -> None:
    code = "import sys\nfrom semi_nnunet.cli.main import VERBS, main\n"
    code += "for verb in VERBS:\n    main([verb, '--help'])\n"
    code += "    assert 'torch' not in sys.modules, verb"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["semi_nnunet", "com"], {"compare"}),
        (["semi_nnunet", "pre"], {"preprocess", "predict"}),
        (["semi_nnunet", "compare", "--va"], {"--values"}),
        (["semi_nnunet", "crossval", "--launcher", ""], {"local", "slurm", "ray"}),
    ],
)
def test_bash_completes_the_typed_words(tmp_path, words, expected) -> None:
    """The script of ``semi_nnunet --install-completion``, sourced by a real bash."""
    script = tmp_path / "completion.sh"
    script.write_text(build_app().generate_completion(shell="bash"))
    typed = " ".join(repr(word) for word in words)
    code = f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _semi_nnunet; "
    code += "printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert {word.strip() for word in done.stdout.split()} == expected


def test_predict_takes_the_options_of_nnunets_own_command() -> None:
    words = ["predict", "-d", "42", "-c", "2d", "-f", "0", "1", "-i", "I", "-o", "O"]
    words += ["--disable_tta", "-step_size", "0.75", "--continue_prediction"]
    _, arguments = parse([*words, "-chk", "checkpoint_best.pth"])
    expected = {
        "mirror": False,
        "step_size": 0.75,
        "resume": True,
        "checkpoint": "checkpoint_best.pth",
    }
    assert {name: arguments[name] for name in expected} == expected
    assert arguments["folds"] == ["0", "1"] and "model" not in arguments


SPELLINGS = {
    "-n": {"number"},  # the short options, and the parameters that they may name
    "-d": {"dataset"},
    "-o": {"out"},
    "-i": {"images", "predictions", "reviewed"},
    "-r": {"references"},
    "-m": {"model", "models"},
    "-tr": {"trainer", "trainers"},
    "-p": {"plans"},
    "-c": {"configuration", "configurations"},
    "-f": {"fold", "folds"},
    "-np": {"processes"},
    "-device": {"device"},
    "-num_gpus": {"gpus"},
    "-chk": {"checkpoint"},
    "-gpu_memory_target": {"gpu_memory_target"},
    "-step_size": {"step_size"},
    "-pl": {"planner"},
    "-pretrained_weights": {"pretrained_weights"},
}


@pytest.mark.parametrize("verb", sorted({*VERBS} - {"convert"}))
def test_every_verb_has_one_spelling_for_one_thing(verb: str) -> None:
    parameters = {name for names in SPELLINGS.values() for name in names}
    app = build_app()[verb]
    for argument in app.assemble_argument_collection():
        names = [name for name in argument.names if name.startswith("-")]
        short = [name for name in names if not name.startswith("--")]
        field = argument.field_info.name
        assert all(field in SPELLINGS[name] for name in short), (verb, short)
        assert short or not names or field not in parameters, f"{verb} {names}: no short spelling"


@pytest.mark.parametrize("verb", sorted({*VERBS} - {"convert"}))
def test_every_option_is_explained(verb: str) -> None:
    for argument in build_app()[verb].assemble_argument_collection(parse_docstring=True):
        if argument.parameter.show is not False and argument.parse is not False:
            assert argument.parameter.help, (verb, argument.names)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "/data/a.nii.gz"), "/data/a.nii.gz: No space left"),
        (PermissionError(13, "Permission denied", "/data"), "/data: Permission denied"),
        (OSError(36, "File name too long", "x"), "x: File name too long"),
        (OSError(28, "No space left on device"), "error: No space left on device. Fix: free"),
    ],
)
def test_a_full_or_closed_disk_is_no_traceback(error, says, monkeypatch, capsys):
    def fails():
        raise error

    monkeypatch.setattr("semi_nnunet.verbs.doctor.doctor", fails)
    assert main(["doctor"]) == 2
    assert says in capsys.readouterr().err


def test_a_reader_that_closes_the_pipe_is_no_fault() -> None:
    code = "import sys\nfrom semi_nnunet.cli import main\nfrom semi_nnunet.verbs import doctor\n"
    code += "def lines():\n    for _ in range(100000): print('a line')\n"
    code += "doctor.doctor = lines\nsys.exit(main.main(['doctor']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr and process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141


def test_a_character_that_the_terminal_lacks_is_no_traceback() -> None:
    code = "from semi_nnunet.cli import main\nfrom semi_nnunet.verbs import doctor\n"
    code += "doctor.doctor = lambda: print('gain \N{MINUS SIGN}1') or 0\n"
    code += "raise SystemExit(main.main())\n"
    words = [sys.executable, "-c", code, "doctor"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "gain ?1\n", "")


def test_another_broken_pipe_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("semi_nnunet.verbs.doctor.doctor", fails)
    with pytest.raises(BrokenPipeError):
        main(["doctor"])


def test_a_closed_output_is_no_fault() -> None:
    code = "import sys; from semi_nnunet.cli.main import main; sys.exit(main(['run', '--list']))"
    shell = f'"{sys.executable}" -c "{code}" >&-'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main([verb, "--help"]) == 0
    except SystemExit as end:
        assert end.code == 0
    assert f"semi_nnunet {verb}" in capsys.readouterr().out


def test_every_verb_has_its_function_in_the_front_door() -> None:
    for verb in {*VERBS} - {"demo", "doctor", "register", "run"}:
        function = verb_function(verb)
        assert inspect.unwrap(getattr(semi_nnunet, function.__name__)) is inspect.unwrap(function)


def test_which_seed_is_not_taken_for_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    for command, other in [
        ("crossval -d 901 -c 2d -tr SemiCPSTrainer", "--seed 1"),
        ("ensemble -d 901 -o out", "--seeds 3"),
    ]:
        assert main([*command.split(), *other.split()]) == 2
        message = capsys.readouterr().err
        assert other.split()[0] in message and f"semi_nnunet {command.split()[0]} --help" in message


def test_a_folder_may_come_after_the_options(tmp_path) -> None:
    _, arguments = parse(["run", "plans/la_4.json", "--converted", "501", "--split", "601", "LA"])
    assert arguments["source"] == Path("LA") and arguments["split"] == 601


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("preprocess -d 777", "none"),
        ("preprocess -d pancreas", "-d 42"),
        ("preprocess -d Dataset777_Absent", "does not exist"),
        ("auto -d 901 -c 2d --hours nan", "above 0, got nan"),
        ("plan -d 901 -c 2d --spacing nan 1", "--spacing must be positive"),
        ("convert kvasri source --new-id 902", "did you mean 'kvasir'"),
        ("preprocess -d 901 -np 1 -pl Nobody", "no planner 'Nobody'"),
        ("preprocess -d 901 -np 1 -c 4d", "no configuration 4d"),
        ("split -d 901 --new-id 902", "--labelled N"),
        ("split -d 901 --new-id 902 --labelled 9", "between 1 and 5"),
        ("split -d 901 --new-id 902 --cases absent.txt", "does not exist"),
        ("plan -d 901 -p Absent", "Fix: choose -p from "),
        ("plan -d 901 --set seed", "KEY=VALUE"),
        ("plan -d 901 --set seed=1 seed.x=2", "'seed'"),
        ("plan -d 901 --set sed=1", "did you mean 'seed'"),
        ("plan -d 901 --set NoTrainer.seed=1", "no trainer NoTrainer"),
        ("plan -d 901 --set epochs=0", "must be in"),
        ("plan -d 901 --budget soon", "--budget"),
        ("plan -d 901 --budget 1 --device nowhere", "--device nowhere"),
        ("plan -d 901 -c 4d", "no configuration 4d"),
        ("plan -d 901 --patch 64.5 64", "must be a whole number, got '64.5'"),
        (
            "split -d 901 --new-id 902 --labelled 2 --hidden-labels=",
            "--hidden-labels: the name of a file",
        ),
        ("plan -d 901 --new-plans my__plans", "'__'"),
        ("plan -d 901 --new-plans dataset", "dataset.json is another file of the data set"),
        ("plan -d 901 --new-plans my_plans_", "nor end with '_'"),
        ("plan -d 901 --new-plans elsewhere/my_plans", "path separators"),
        ("report -d 901 -o .", "is a folder"),
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


@pytest.mark.parametrize(
    "words", [["install", ""], ["convert", "kvasir", "", "--new-id", "902"], ["run", "kvasir", ""]]
)
def test_an_empty_path_is_not_the_current_folder(words: list[str], capsys) -> None:
    assert main(words) == 2
    assert "the name of a file or folder is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (["doctor"], "continues"),
        (["predict", "-m", "M", "-i", "I", "-o", "O"], "starts again"),
        (["tune", "-m", "M"], "starts again"),
        (["package", "-m", "M", "-o", "O"], "starts again"),
        (["convert", "acdc", "SRC", "--new-id", "1"], "starts again"),
    ],
)
def test_an_interrupt_says_what_the_same_command_does(words, outcome, monkeypatch, capsys) -> None:
    verb = words[0]
    parameters = inspect.signature(verb_function(verb)).parameters

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    interrupted.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    interrupted.__annotations__ = verb_function(verb).__annotations__
    interrupted.__module__ = verb_function(verb).__module__
    monkeypatch.setattr(f"semi_nnunet.verbs.{verb}.{verb}", interrupted)
    assert main(words) == 130
    assert outcome in capsys.readouterr().err


def test_verbs_are_listed_once_by_task(capsys) -> None:
    main(["--help"])
    lines = [
        line.strip("\u2502\u256d\u256e\u2500 ") for line in capsys.readouterr().out.splitlines()
    ]
    assert [line for line in lines if line in TASKS] == [*TASKS]
    listed = [line.split("  ")[0] for line in lines if "  " in line]
    listed = [word for word in listed if word in VERBS]
    assert sorted(listed) == sorted(VERBS)


def test_it_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "semi_nnunet", "--version"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("semi_nnunet ")


def test_the_list_of_converters_comes_without_importing_one() -> None:
    code = "import sys\nfrom semi_nnunet.cli.main import main\nmain(['convert', '--help'])\n"
    code += "print([m for m in sys.modules if m.startswith('semi_nnunet.datas')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "from CT to MR" in done.stdout
    assert done.stdout.endswith("['semi_nnunet.datasets', 'semi_nnunet.datasets.converters']\n")


def test_the_folder_of_the_trainers_is_printed_and_nothing_else(capsys) -> None:
    assert main(["register", "--print"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert (Path(line) / "semi_nnunet_trainers.py").is_file()
