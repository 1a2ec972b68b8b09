"""The page shows the measured numbers, and loads nothing from the network."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.values import Model, Value, write_values
from semi_nnunet.reporting.background import Background, MethodSettings
from semi_nnunet.reporting.choice import MethodChoice
from semi_nnunet.reporting.costs import CostRow, MachineCosts, TrainingCosts
from semi_nnunet.reporting.curves import draw_curve_panel
from semi_nnunet.reporting.measured import ALL_CLASSES, measure_subset
from semi_nnunet.reporting.page import (
    draw_box_charts,
    draw_changes,
    draw_interval_charts,
    find_case_frames,
    format_case_counts,
    render_report,
    write_report_page,
)
from semi_nnunet.reporting.report_data import Report, TrainingRecords, build_report
from semi_nnunet.reporting.run_pages import Panel, Pool, Run
from semi_nnunet.reporting.shown_cases import Frame, Viewer
from semi_nnunet.reporting.wording import format_points, name_method
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.report.gains import measured, values
from tests.report.parsed_page import Elements, Page
from tests.report.results_tree import BASE, OTHER, OURS, Tree


def csv_values(tree: Tree, trainer: str) -> dict[tuple[str, str], list[float]]:
    """Read (case, class) -> the Dice of each seed from metrics.csv."""
    values: dict[tuple[str, str], list[float]] = {}
    for plans in ("nnUNetPlans", "nnUNetPlans_seed1"):
        path = tree.results / f"{trainer}__{plans}__2d" / "fold_0" / "test" / "metrics.csv"
        with path.open() as file:
            for row in csv.DictReader(file):
                values.setdefault((row["case"], row["class"]), []).append(float(row["dice"]))
    return values


def test_the_answer_comes_first_and_agrees_with_the_statistics(html, page, tree, monkeypatch):
    assert "Yes: Mean Teacher" in page.text
    ours, base = (csv_values(tree, trainer) for trainer in (OURS, BASE))
    gain = np.mean([np.mean(ours[key]) - np.mean(base[key]) for key in ours])
    assert f"{format_points(gain, 'dice')} points, 95 % interval" in page.text
    assert "Better in 7 of 7 test cases" in page.text and "2 seeds, fold 0" in page.text
    assert html.index("Yes: Mean Teacher") < html.index("Methods and classes</h2>")


def test_the_numbers_of_the_tables_agree_with_metrics_csv(page, tree):
    rows = {row[0][0]: row for row in page.tables["metric-test dice"][1:]}
    for trainer in (BASE, OURS):
        values = csv_values(tree, trainer)
        classes = {
            name: np.mean([value for key, value in values.items() if key[1] == name])
            for name in ("liver", "tumour")
        }
        shown = [float(value) for value, _ in rows[trainer][1:]]
        assert shown == pytest.approx([2, np.mean(list(classes.values())), *classes.values()])
        for (_, text), value in zip(rows[trainer][3:], classes.values(), strict=True):
            assert re.match(rf"{100 * value:.1f}(?!\d)", text)
    ours, base = csv_values(tree, OURS), csv_values(tree, BASE)
    cases = page.tables["cases-test"][1:]
    assert len(cases) == 7 * 3
    for row in cases:
        case, name = row[0][0], row[1][0]
        keys = [(case, n) for n in (("liver", "tumour") if name == ALL_CLASSES else (name,))]
        base_mean, our_mean = (float(np.mean([t[key] for key in keys])) for t in (base, ours))
        difference, _, *values = (value for value, _ in row[2:])
        assert float(difference) == pytest.approx(our_mean - base_mean)
        assert [float(value) for value in values] == pytest.approx([base_mean, our_mean])
        assert row[2][1] == format_points(our_mean - base_mean, "dice")


def test_nothing_is_loaded_and_every_picture_has_a_description(html, page):
    outside = re.sub(r'<script type="application/json">.*?</script>', "", html, flags=re.DOTALL)
    assert not re.search(r"(https?:)?//\w", re.sub(r"data:image/\w+;base64,[^\"]+", "", outside))
    assert "@import" not in html and "url(" not in html and "<link" not in html
    assert page.images and all("alt" in image for image in page.images)
    layers = [image for image in page.images if "data-layer" in image]
    assert layers and all(image["alt"] for image in layers)
    assert all(image.get("src", "data:").startswith("data:") for image in page.images)
    assert len(html) < 2**20


def test_curves_filtering_and_settings_are_shown_and_escaped(html, page):
    for word in ("learning rate", "consistency", "pseudo label", "mask ratio", "student"):
        assert word in page.text
    assert "8 of 12 unlabelled images kept" in page.text and "pool_11" in page.text
    assert "given in plans['semi'] <b>&" in page.text and "<b>&" not in html
    assert "nnUNetv2_train Dataset007_Seven 2d 0 -tr SemiMeanTeacherTrainer" in page.text
    assert "semi_nnunet crossval -d Dataset007_Seven -c 2d -f 0" in page.text
    assert "Mean Teacher (Tarvainen" in page.text


def test_costs_are_shown_next_to_dice_with_the_machine(html, page):
    section = html.split('<section id="cost">')[1].split("</section>")[0]
    assert '<h3 class="machine">CPU 3000, 1 thread</h3>' in section
    rows = re.findall(r'<tr.*?data-value="Semi(\w+)Trainer">.*?</tr>', section)
    assert rows == ["Baseline", "MeanTeacher"]
    for text in ("10 min 00 s", "25 min 00 s", "1.50", "1.00", "2.50"):
        assert f">{text}</td>" in section
    assert section.count("<circle") == 2 * 3 and "Not recorded" not in page.text


def test_boxes_show_the_median_of_the_cases_of_every_method_and_class():
    results = measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.01})
    charts = draw_box_charts(results, Model(BASE, "2d"))
    assert [chart.title for chart in charts] == [ALL_CLASSES, "liver", "tumour"]
    means = results.case_means()
    for chart in charts:
        assert [row.name for row in chart.rows] == ["Baseline", "FixMatch", "Mean Teacher"]
        for model, row in zip(results.models, chart.rows, strict=True):
            median = np.median([case_means[chart.title] for case_means in means[model].values()])
            assert row.text == f"{100 * median:.1f}" and row.chart.count('class="case"') == 12


def test_intervals_show_the_method_by_class_and_all_methods_best_first():
    report = report_of(BASE, OURS, OTHER)
    by_class, all_methods = draw_interval_charts(report)
    assert by_class.title == f"{name_method(OTHER)}, by class"
    assert [row.name for row in by_class.rows] == [ALL_CLASSES, "liver", "tumour"]
    assert [row.name for row in all_methods.rows] == ["FixMatch", "Mean Teacher"]
    overall = report.answer.compared.overall
    assert by_class.rows[0].text == all_methods.rows[0].text == format_points(overall.mean, "dice")
    assert 'class="dot better"' in by_class.rows[0].chart
    assert draw_interval_charts(report_of(BASE)) == []


def test_every_row_of_cases_has_a_change_if_there_are_two_methods():
    two_methods, one_method = report_of(BASE, OURS), report_of(BASE)
    for row, chart in draw_changes(two_methods, two_methods.measured[0]):
        assert f'class="dot {"better" if row.difference >= 0 else "worse"}"' in chart
    assert {chart for _, chart in draw_changes(one_method, one_method.measured[0])} == {""}


def test_a_case_links_to_the_first_viewer_that_shows_it():
    frame = Frame("", 1.0, "", {}, [])
    volume = Viewer("a volume", "", {}, [], [frame] * 3, 2, ["a"] * 3)
    images = Viewer("all images", "", {}, [], [frame] * 3, 0, ["b", "a", "c"])
    assert find_case_frames([volume, images]) == {"a": (0, 2), "b": (1, 0), "c": (1, 2)}
    assert find_case_frames([]) == {}


def test_only_recorded_numbers_of_cases_are_shown():
    assert format_case_counts(report_of(BASE)) == ""
    shown = replace(report_of(BASE), trained=trained_of("x"))
    assert format_case_counts(shown) == "x labelled"


def report_of(*trainers: str) -> Report:
    """Return a report of values, in which each trainer is better than the previous ones."""
    gains = {trainer: 0.02 * rank for rank, trainer in enumerate(trainers)}
    return build_report("Seven", "nnUNetPlans", "dice", [measured("test", **gains)], BASE)


def trained_of(name: str) -> TrainingRecords:
    """Return records of trainings in which everything has the same name."""
    picture = "data:image/png;base64,"
    frame = Frame(name, 1.0, picture, {"method": picture}, [[name, "0.5"]])
    panels = {"image": name, "method": name, "disagreement": name}
    frame = replace(frame, layers=dict.fromkeys(panels, picture))
    panel = Panel(name, [(0, name)], draw_curve_panel([(0, ([1, 2], [0.1, 0.2]))], name))
    chart = draw_curve_panel([(0, ([1, 2], [0.1, 0.2]))], name)
    cost = CostRow(Model(f"Semi{name}Trainer", name), 2, 0.6, 80.0, 1.5, math.nan, 3.0)
    background = Background(
        [("labelled cases", name), (name, name)], [(name, [(name, name)])],
        [MethodSettings(name, [(name, name, name)], name)], [(name, name)], [name], name,
    )  # fmt: skip
    return TrainingRecords(
        unmeasured=[name],
        viewers=[Viewer(name, name, panels, ["class", name], [frame] * 2, 1, [name] * 2)],
        viewers_note=name,
        viewers_subset="test",
        runs=[Run(name, name, [panel]), Run(name, name, [])],
        first_run=0,
        dice=[panel],
        pools=[Pool(name, name, chart, [(name, 0.5, True)])],
        background=background,
        costs=TrainingCosts([MachineCosts(name, [cost], [panel])], name),
    )


def named(name: str) -> Report:
    """Return a report in which data set, plans, classes, cases and methods have the same name."""
    ours = f"Semi{name}Trainer"
    rows = [
        Value(Model(trainer, name), "0", seed, name + case, name + suffix, 0.5 + gain, name + case)
        for trainer, gain in ((BASE, 0.0), (ours, 0.1))
        for seed in (0, 1)
        for case in ("", "2", "3")
        for suffix in ("", "2")
    ]
    results = measure_subset("test", {"dice": rows}, BASE)
    assert results is not None
    results = replace(results, note=name)
    report = build_report(name, name, "dice", [results], BASE)
    return replace(report, methods=[(name, name)], trained=trained_of(name))


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "<!--<script>",
        "{{ 7*7 }}",
    ],
)
def test_names_are_text_everywhere(name):
    plain, hostile = (Elements(render_report(named(text))) for text in ("plainname", name))
    assert hostile.found == plain.found  # the same elements, with the same attributes
    assert len(hostile.scripts) == 2 and hostile.scripts[1] == plain.scripts[1]
    assert hostile.text.replace(name, "plainname") == plain.text
    frames = json.loads(hostile.scripts[0])
    assert [frame["caption"] for frame in frames] == [name] * 2
    assert [frame["scores"] for frame in frames] == [[[name, "0.5"]]] * 2


def test_errors_of_values_are_explained(tree, tmp_path, monkeypatch, capsys):
    tree.set_paths(monkeypatch)
    values_file, out = tmp_path / "kept.csv", ["-o", str(tmp_path / "values.html")]
    assert main(["compare", "-d", "7", "--write-values", str(values_file)]) == 0
    capsys.readouterr()
    for words, message in (
        (
            ["--values", str(values_file), "--baseline", "SemiBaselneTrainer"],
            f"did you mean '{BASE}'?",
        ),
        (["--values", str(values_file), "--metric", "iou"], "must have the columns"),
        (["--values", str(tmp_path / "none.csv")], "is not an existing file"),
        (["--values", str(values_file), "-d", "7"], "Mutually exclusive"),
        ([], "nothing to report"),
    ):
        with contextlib.suppress(SystemExit):
            assert main(["report", *words, *out]) == 2
        assert message in capsys.readouterr().err
    header, *rows = values_file.read_text().splitlines()[:-1]
    undefined = [row[: row.rindex(",") + 1] for row in rows]
    for lines, message in (([], "hold no values"), (undefined, "is not defined")):
        values_file.write_text("\n".join([header, *lines]) + "\n\n")
        assert main(["report", "--values", str(values_file), *out]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "values.html").exists()


def test_nothing_measured_is_explained(tmp_path, monkeypatch, capsys):
    tree = Tree(tmp_path, cases=1)
    tree.set_paths(monkeypatch)
    assert main(["report", "-d", "7", "-o", str(tmp_path / "r.html")]) == 2
    assert "semi_nnunet crossval" in capsys.readouterr().err
    assert main(["report", "-d", "7", "-o", str(tmp_path / "no" / "r.html")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.fixture
def values_file(tmp_path):
    """A file with values of two methods."""
    rows = [*values(BASE, 0), *values(OURS, 0.03)]
    path = tmp_path / "kept.csv"
    write_values(
        path, {"test": rows}, "dice", ("Seven \N{GREEK SMALL LETTER ALPHA}", "nnUNetPlans")
    )
    return path


def test_the_returned_answer_is_in_the_file(values_file, tmp_path):
    report = write_report_page(values=[values_file], out=tmp_path / "page.html")
    assert report.path == tmp_path / "page.html" and report.size == report.path.stat().st_size
    text = Page(report.path.read_text(encoding="utf-8")).text
    assert report.headline in text and len(report.sentences) > 2
    assert all(sentence in text for sentence in report.sentences)
    assert {path.name for path in tmp_path.iterdir()} == {"kept.csv", "page.html"}


def test_a_report_replaces_an_older_one_completely_or_not_at_all(values_file, tmp_path):
    out = tmp_path / "page.html"
    out.write_text("an older one")
    with pytest.raises(UserError):
        write_report_page(values=[values_file], baseline="Nobody", out=out)
    assert out.read_text() == "an older one"
    write_report_page(values=[values_file], out=out)
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_file_of_values_is_not_overwritten(values_file):
    content = values_file.read_text()
    with pytest.raises(UserError, match=r"kept\.csv"):
        write_report_page(values=[values_file], out=values_file)
    assert values_file.read_text() == content


def test_a_report_without_data_is_rejected(values_file, tmp_path):
    with pytest.raises(UserError, match="nothing to report"):
        write_report_page(out=tmp_path / "page.html")
    with pytest.raises(UserError, match="-p chooses trainings of -d"):
        write_report_page(values=[values_file], plans="others", out=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'


@pytest.mark.parametrize("shape", [(6, 24, 20), (24, 20)])
def test_no_name_becomes_an_element_of_the_page(shape, tmp_path, monkeypatch, capsys):
    def report(called, first, second):
        labels = {"background": 0, first: 1, second: 2}
        name = f"Dataset007_Seven{called}"
        tree = Tree(tmp_path / "".join(filter(str.isalnum, called)), shape, 3, name, labels, called)
        tree.set_paths(monkeypatch)
        for trainer in (BASE, OURS):
            tree.describe(tree.train(trainer), unlabelled=trainer == OURS)
        out = tree.root / "report.html"
        assert main(["report", "-d", "7", "-o", str(out)]) == 0
        return out.read_text(encoding="utf-8")

    of_files = IMAGE  # a slash cannot be in the name of a file
    page, plain = report(of_files, SCRIPT, IMAGE), report("plain", "liver", "tumour")
    assert "alert(1)" in page
    outside = re.sub(r'<script type="application/json">.*?</script>', "", page, flags=re.DOTALL)
    assert SCRIPT not in outside and IMAGE not in outside
    hostile, usual = Elements(page), Elements(plain)
    assert hostile.found == usual.found  # the same elements, with the same attributes
    assert len(hostile.scripts) == len(usual.scripts)
    assert SCRIPT in hostile.text and IMAGE in hostile.text


def test_no_name_reaches_the_terminal_as_an_escape_sequence(tmp_path, monkeypatch, capsys):
    escape = "\x1b[31mred\x1b[2J"
    labels = {"background": 0, f"liver{escape}": 1, "tumour": 2}
    tree = Tree(tmp_path, cases=3, labels=labels)
    tree.set_paths(monkeypatch)
    for trainer in (BASE, OURS):
        tree.train(trainer)  # semi_nnunet evaluate
    assert main(["report", "-d", "7", "-o", str(tmp_path / "report.html")]) == 0
    assert main(["compare", "-d", "7"]) == 0
    folder = tree.results / f"{OURS}__nnUNetPlans{escape}__2d" / "fold_0"
    shutil.copytree(tree.results / f"{OURS}__nnUNetPlans__2d" / "fold_0", folder)
    assert main(["status", "-d", "7"]) == 0
    assert main(["compare", "-d", "7", "-p", f"none{escape}"]) == 2
    (tree.raw / "imagesUn").mkdir()
    (tree.raw / "imagesUn" / f"a{escape}.txt").touch()
    (tree.raw / "imagesUn" / f"a{escape}_0000.nii.gz").touch()
    assert main(["preprocess", "-d", "7", "-np", "1"]) == 2
    output = "".join(capsys.readouterr())
    assert "\x1b" not in output and "\\x1b[31mred" in output


def test_the_choice_and_the_cost_of_submissions_are_shown(values_file, tmp_path):
    rows = (("short", "100", "0 1", "Base, <script>", "CPS"),)
    MethodChoice("SemiCPSTrainer", ("Folds 0 1 choose.",), rows, ("CPS is exported.",)).write(
        tmp_path / "choice.json"
    )
    folders = []
    for name, seconds in (("<b>slow", 20.0), ("fast", 4.5)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        mean = {"seconds": seconds, "cpu_area": 9.0, "own_memory": 5.0, "dice": 0.9}
        content = {"command": 'run "<i>"', "mean": mean, "cases": {"a": mean}}
        write_json(folders[-1] / "efficiency.json", content)
    out = tmp_path / "shown.html"
    write_report_page(
        values=[values_file], choice=tmp_path / "choice.json", efficiency=folders, out=out
    )
    html = out.read_text(encoding="utf-8")
    page = Page(html)
    texts = ("Folds 0 1 choose.", "Base, <script>", "CPS is exported.", "<b>slow", "20.0", "4.5")
    for text in texts:
        assert text in page.text
    assert "Base, <script>" not in html and "<b>slow" not in html and "<i>" not in html
    assert 'href="#choice"' in html and 'href="#cost"' in html
    write_report_page(values=[values_file], out=out)
    html = out.read_text(encoding="utf-8")
    assert 'href="#choice"' not in html and 'href="#cost"' not in html
