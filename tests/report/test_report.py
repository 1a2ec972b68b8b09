"""``semi_nnunet report``: what the page says is what was measured."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.comparison import compare, patients_note
from semi_nnunet.evaluation.values import Model, Value
from semi_nnunet.report.answer import answer
from semi_nnunet.report.background import about, fingerprint_facts, pool_used
from semi_nnunet.report.charts import Axis, axis_of, box_row, interval_row
from semi_nnunet.report.curves import curves, histogram
from semi_nnunet.report.measured import ALL_CLASSES, Measured, metric_table
from semi_nnunet.report.run_pages import all_dice
from semi_nnunet.report.wording import (
    DASH,
    MINUS,
    breakable,
    in_points,
    metric_title,
    short_name,
    signed,
)
from semi_nnunet.runs.folders import Folders, folders_of
from semi_nnunet.runs.trainings import found_jobs
from semi_nnunet.util.files import write_json
from tests.report.results_tree import BASE, OTHER, OURS, Tree, whole_tree

NAN = float("nan")


class Page(HTMLParser):
    """Tables as lists of rows of (data-value, text), images, and all text."""

    def __init__(self, html: str):
        super().__init__()
        self.images: list[dict] = []
        self.tables: dict[str, list[list[tuple[str, str]]]] = {}
        self.text, self.group, self.cell = "", "", None
        self.feed(html)

    def handle_starttag(self, tag, pairs):
        found = dict(pairs)
        if tag == "img":
            self.images.append(found)
        if "data-group" in found:
            self.group = f"{found['data-group']} {found['data-name']}"
        elif tag == "section":
            self.group = ""
        elif tag == "table":
            self.tables.setdefault(found.get("id", self.group), [])
            self.rows = self.tables[found.get("id", self.group)]
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append((found.get("data-value", ""), ""))
            self.cell = self.rows[-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell:
            value, text = self.cell[-1]
            self.cell[-1] = (value, text + data)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Tree:
    return whole_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def html(tree) -> str:
    out = tree.root / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        tree.set_paths(patch)
        assert main(["report", "-d", "7", "-o", str(out)]) == 0
    return out.read_text()


@pytest.fixture
def page(html) -> Page:
    return Page(html)


def csv_values(tree: Tree, trainer: str) -> dict[tuple[str, str], list[float]]:
    """(case, class) -> the Dice of each seed, straight from metrics.csv."""
    found: dict[tuple[str, str], list[float]] = {}
    for plans in ("nnUNetPlans", "nnUNetPlans_seed1"):
        path = tree.results / f"{trainer}__{plans}__2d" / "fold_0" / "test" / "metrics.csv"
        with path.open() as file:
            for row in csv.DictReader(file):
                found.setdefault((row["case"], row["class"]), []).append(float(row["dice"]))
    return found


def test_the_answer_comes_first_and_agrees_with_the_statistics(html, page, tree, monkeypatch):
    assert "Yes: MeanTeacher is better than Baseline on the test cases." in page.text
    ours, base = (csv_values(tree, trainer) for trainer in (OURS, BASE))
    gain = np.mean([np.mean(ours[key]) - np.mean(base[key]) for key in ours])
    assert f"{in_points(gain, 'dice')} points, 95 % interval" in page.text
    assert "Better in 7 of 7 test cases" in page.text and "2 seeds, fold 0" in page.text
    assert html.index("Yes: MeanTeacher") < html.index("Methods and classes</h2>")


def test_all_numbers_of_the_tables_are_those_of_metrics_csv(page, tree):
    rows = {row[0][0]: row for row in page.tables["metric-test dice"][1:]}
    for trainer in (BASE, OURS):
        values = csv_values(tree, trainer)
        classes = {
            name: np.mean([value for key, value in values.items() if key[1] == name])
            for name in ("liver", "tumour")
        }
        shown = [float(value) for value, _ in rows[trainer][1:]]
        assert shown == pytest.approx([2, np.mean(list(classes.values())), *classes.values()])
        for (_, text), value in zip(rows[trainer][2:], classes.values(), strict=False):
            assert re.match(r"0\.\d{3}", text) and value > 0
    ours, base = csv_values(tree, OURS), csv_values(tree, BASE)
    cases = page.tables["cases-test"][1:]
    assert len(cases) == 7 * 3
    for row in cases:
        case, name = row[0][0], row[1][0]
        keys = [(case, n) for n in (("liver", "tumour") if name == ALL_CLASSES else (name,))]
        before, after = (float(np.mean([t[key] for key in keys])) for t in (base, ours))
        difference, _, *values = (value for value, _ in row[2:])
        assert float(difference) == pytest.approx(after - before)
        assert [float(value) for value in values] == pytest.approx([before, after])
        assert row[2][1] == signed(after - before, "dice")


def test_what_lost_most_comes_first(page):
    differences = [float(row[2][0]) for row in page.tables["cases-test"][1:]]
    assert differences == sorted(differences)


def test_nothing_is_fetched_and_every_picture_is_described(html, page):
    outside = re.sub(r'<script type="application/json">.*?</script>', "", html, flags=re.DOTALL)
    assert not re.search(r"(https?:)?//\w", re.sub(r"data:image/\w+;base64,[^\"]+", "", outside))
    assert "@import" not in html and "url(" not in html and "<link" not in html
    assert page.images and all("alt" in image for image in page.images)
    layers = [image for image in page.images if "data-layer" in image]
    assert layers and all(image["alt"] for image in layers)
    assert all(image.get("src", "data:").startswith("data:") for image in page.images)
    assert len(html) < 2**20


def test_cases_are_shown_with_their_slices_and_scores(html, page, tree):
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', html, flags=re.DOTALL)
    frames = [json.loads(script) for script in scripts]
    assert 3 <= len(frames) <= 4 and all(len(case) > 1 for case in frames)
    for word in ("Worst case", "Median case", "Best case", "slice", "Disagreement", "seed 0"):
        assert word in page.text
    with (tree.results / f"{OURS}__nnUNetPlans__2d/fold_0/test/metrics.csv").open() as file:
        written = {f"{float(row['dice']):.3f}" for row in csv.DictReader(file)}
    assert {row[2] for case in frames for row in case[0]["scores"]} <= written


def test_curves_filtering_and_settings_are_there_and_escaped(html, page):
    for word in ("learning rate", "consistency", "pseudo label", "mask ratio", "student"):
        assert word in page.text
    assert "8 of 12 unlabelled images kept" in page.text and "pool_11" in page.text
    assert "given in plans['semi'] <b>&" in page.text and "<b>&" not in html
    assert "nnUNetv2_train Dataset007_Seven 2d 0 -tr SemiMeanTeacherTrainer" in page.text
    assert "semi_nnunet crossval -d Dataset007_Seven -p " in page.text
    assert "Mean Teacher (Tarvainen" in page.text


def test_every_method_has_a_panel_of_its_trainings_over_those_of_the_baseline(tree, monkeypatch):
    tree.set_paths(monkeypatch)
    jobs = found_jobs(folders_of("7"), "nnUNetPlans")
    alone = [job for job in jobs if job.trainer == BASE]
    for panel in all_dice(jobs, BASE):
        name = short_name(BASE), panel.title
        assert panel.legend == list(enumerate(name)) and panel.title != name[0]
        runs = [job for job in jobs if short_name(job.trainer) == panel.title]
        assert panel.chart.count("var(--series-1)") == len(runs) > 0
        assert panel.chart.count("var(--series-0)") == len(alone) > 0
    (only,) = all_dice(alone, BASE)
    assert only.legend == [(1, short_name(BASE))]
    assert all_dice([], BASE) == []


def test_what_is_missing_is_said_and_is_no_error(tmp_path, monkeypatch, capsys):
    tree = Tree(tmp_path, cases=3)
    tree.set_paths(monkeypatch)
    tree.train("nnUNetTrainer")
    shutil.rmtree(tree.raw / "imagesTs")
    out = tmp_path / "report.html"
    assert main(["report", "-d", "7", "-o", str(out)]) == 0
    text = Page(out.read_text()).text
    assert "There is nothing to compare yet." in text
    assert "The baseline Baseline is not among them" in text
    assert "no semi_history.csv" in text and "No training filtered them" in text
    assert "not there any more" in text and "No semi_settings.json" in text
    tree.train(BASE)
    (tree.results / f"{OURS}__nnUNetPlans__2d" / "fold_0").mkdir(parents=True)
    assert main(["report", "-d", "7", "-o", str(out), "--baseline", "nnUNetTrainer"]) == 0
    text = Page(out.read_text()).text
    assert "Not measured yet, and not counted: MeanTeacher 2d, fold 0, seed 0." in text
    said = capsys.readouterr().out
    assert "With one seed" in said and "With 3 cases this test cannot show more" in said


def test_trainings_that_were_not_measured_again_are_not_shown(tmp_path, monkeypatch):
    tree = whole_tree(tmp_path, cases=5)
    tree.set_paths(monkeypatch)
    again = tree.results / f"{OURS}__nnUNetPlans__2d" / "fold_0"
    (again / "checkpoint_final.pth").touch()
    os.utime(again / "test" / "metrics.csv", (0, 0))
    out = tmp_path / "report.html"
    assert main(["report", "-d", "7", "-o", str(out)]) == 0
    text = Page(out.read_text()).text
    assert f"is older than the training or validation of {OURS} 2d fold 0 seed 0" in text
    assert "predictions of fold 0, seed 1" in text
    assert "predictions of fold 0, seed 0" not in text


def test_values_alone_give_the_same_answer_tables_and_cases(page, tree, tmp_path, monkeypatch):
    tree.set_paths(monkeypatch)
    kept, out = tmp_path / "kept.csv", tmp_path / "values.html"
    assert main(["compare", "-d", "7", "--write-values", str(kept)]) == 0
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{name}")
    assert main(["report", "--values", str(kept), "-o", str(out)]) == 0
    html = out.read_text()
    alone = Page(html)

    def rounded(table: str, of: Page) -> list[list[tuple[object, str]]]:
        return [[(number(v), text) for v, text in row] for row in of.tables[table]]

    def number(value: str) -> object:
        try:
            return round(float(value), 5)  # values are kept to the sixth digit
        except ValueError:
            return value

    shown = {name for name in page.tables if name.startswith("cases-")} | {"metric-test dice"}
    assert {name for name in alone.tables if alone.tables[name]} == shown and len(shown) == 2
    for table in shown:
        assert rounded(table, alone) == rounded(table, page)
    assert "Yes: MeanTeacher is better than Baseline on the test cases." in alone.text
    assert "Made of recorded values alone" in alone.text and "Seven" in alone.text
    assert 'id="images"' not in html and 'href="#training"' not in html and "viewer-" not in html


def test_values_that_cannot_be_reported_are_explained(tree, tmp_path, monkeypatch, capsys):
    tree.set_paths(monkeypatch)
    kept, out = tmp_path / "kept.csv", ["-o", str(tmp_path / "values.html")]
    assert main(["compare", "-d", "7", "--write-values", str(kept)]) == 0
    capsys.readouterr()
    for wrong, said in (
        (["--values", str(kept), "--baseline", "SemiBaselneTrainer"], f"did you mean '{BASE}'?"),
        (["--values", str(kept), "--metric", "iou"], "must have the columns"),
        (["--values", str(tmp_path / "none.csv")], "is no file that exists. Fix: correct --values"),
        (["--values", str(kept), "-d", "7"], "not allowed with argument"),
        ([], "one of the arguments -d --values is required"),
    ):
        with contextlib.suppress(SystemExit):
            assert main(["report", *wrong, *out]) == 2
        assert said in capsys.readouterr().err
    header, *rows = kept.read_text().splitlines()
    undefined = [row[: row.rindex(",") + 1] for row in rows]
    for lines, said in (([], "hold no values. Fix: write them"), (undefined, "and is for none")):
        kept.write_text("\n".join([header, *lines]))
        assert main(["report", "--values", str(kept), *out]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "values.html").exists()


def test_a_line_on_every_trainer():
    assert "Tarvainen" in about(OURS)
    for stock in ("nnUNetTrainer", "nnUNetTrainer_5epochs"):
        assert about(stock).startswith(f"{stock}: nnU-Net's own, which learns from the labelled")
    assert about("MyOwnTrainer") == "MyOwnTrainer"  # in nnUNet_extTrainer, or not there any more


def test_images_that_select_left_out_are_told(tmp_path):
    folders = Folders(tmp_path, tmp_path, tmp_path)
    used = [{"cases": {"unlabelled": ["u"] * number}} for number in (8, 3, 8)]
    assert pool_used(folders, [{}]) == ""
    assert pool_used(folders, used[::2]) == "Trainings began with 8 unlabelled images."
    write_json(tmp_path / "semi_selected.json", {"score": "uncertainty", "cases": ["u"] * 3})
    assert "began with 3 to 8 unlabelled images. semi_nnunet select (--score uncertainty) " in (
        said := pool_used(folders, used)
    )
    assert "has chosen 3 to train on" in said


def test_nothing_measured_is_explained(tmp_path, monkeypatch, capsys):
    tree = Tree(tmp_path, cases=1)
    tree.set_paths(monkeypatch)
    assert main(["report", "-d", "7", "-o", str(tmp_path / "r.html")]) == 2
    assert "Fix: semi_nnunet crossval" in capsys.readouterr().err
    assert main(["report", "-d", "7", "-o", str(tmp_path / "no" / "r.html")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_a_metric_that_is_defined_nowhere_is_left_out(tmp_path, monkeypatch, capsys):
    tree = whole_tree(tmp_path, cases=3)
    tree.set_paths(monkeypatch)
    for path in tree.results.rglob("metrics.csv"):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"hd95_edge_mm": ""} for row in rows)
    out = ["-o", str(tmp_path / "report.html")]
    assert main(["report", "-d", "7", *out]) == 0
    tables = Page((tmp_path / "report.html").read_text()).tables
    assert "metric-test assd_edge_mm" in tables and "metric-test hd95_edge_mm" not in tables
    assert main(["report", "-d", "7", "--metric", "hd95_edge_mm", *out]) == 2
    assert "hd95_edge_mm must be defined for one class of one case" in capsys.readouterr().err


def test_colour_images_are_pages_of_their_own_with_dice_and_iou(tmp_path, monkeypatch):
    tree = whole_tree(tmp_path, shape=(32, 24), cases=5)
    tree.set_paths(monkeypatch)
    out = tmp_path / "report.html"
    assert main(["report", "-d", "7", "-o", str(out)]) == 0
    html = out.read_text()
    (script,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    frames = json.loads(script)
    assert len(frames) == 5 and "(1 of 5)" in frames[0]["caption"]
    assert frames[0]["image"].startswith("data:image/jpeg") and frames[0]["ratio"] == 24 / 32
    text = Page(html).text
    assert "Every image, the worst first" in text and "IoU, MeanTeacher" in text
    worst = [float(np.mean([float(row[2]) for row in frame["scores"]])) for frame in frames]
    assert worst[0] < worst[-1]


# ---- the answer ----


def values(trainer: str, gain: float, cases: int = 12, noise: float = 0.004) -> list[Value]:
    rng = np.random.default_rng(len(trainer))
    return [
        Value(Model(trainer, "2d"), "0", seed, f"c{case}", name, 0.7 + gain + noise * rng.normal())
        for seed in (0, 1)
        for case in range(cases)
        for name in ("liver", "tumour")
    ]


def measured(subset: str, metric: str = "dice", **gains: float) -> Measured:
    rows = [v for trainer, gain in gains.items() for v in values(trainer, gain)]
    found = compare(rows, BASE, metric) if BASE in gains and len(gains) > 1 else []
    return Measured(
        subset, metric, tuple(rows), tuple(found), (metric_table(rows, found, BASE, metric),)
    )


def test_validation_cases_choose_and_test_cases_confirm():
    chosen = measured("validation", **{BASE: 0, OURS: 0.03, OTHER: 0.02})
    said = answer([measured("test", **{BASE: 0, OURS: 0.02, OTHER: 0.04}), chosen], BASE)
    assert said.verdict == "better" and said.subset == "test"
    assert said.headline == "Yes: MeanTeacher is better than Baseline on the test cases."
    assert any("best on the validation cases, among 2 methods" in s for s in said.sentences)
    said = answer([measured("test", **{BASE: 0, OURS: 0, OTHER: 0.04}), chosen], BASE)
    assert said.verdict == "open"
    assert said.headline == "No evidence that MeanTeacher is better than Baseline."


def test_patients_are_counted_where_they_are_known():
    item = measured("test", **{BASE: 0, OURS: 0.03})
    told = tuple(replace(v, patient=v.case[:2]) for v in item.values)
    (found,) = compare(told, BASE, "dice")
    note = patients_note(told)
    said = answer([replace(item, values=told, compared=(found,), note=note)], BASE)
    sentences = " ".join(said.sentences)
    assert "Better in 10 of 10 test patients" in sentences and sentences.endswith(note)
    assert "test cases" in " ".join(answer([item], BASE).sentences)


def test_no_gain_is_claimed_without_evidence():
    said = answer([measured("test", **{BASE: 0, OURS: 0.0001})], BASE)
    assert said.headline.startswith("No evidence") and "Yes" not in " ".join(said.sentences)
    said = answer([measured("test", **{BASE: 0, OURS: -0.02})], BASE)
    assert said.verdict == "worse" and said.headline.startswith("No: MeanTeacher is worse")


def test_validation_cases_alone_do_not_say_yes():
    said = answer([measured("validation", **{BASE: 0, OURS: 0.03, OTHER: 0.02})], BASE)
    assert "no test cases confirm it" in said.headline
    assert any("flatters" in sentence for sentence in said.sentences)
    said = answer([measured("validation", **{BASE: 0.05, OURS: 0.03})], BASE)
    assert said.headline == "No: on the validation cases, nothing is better than Baseline itself."
    equal = measured("validation", **{BASE: 0})
    rows = [*equal.values, *(replace(v, model=Model(OURS, "2d")) for v in equal.values)]
    equal = replace(equal, values=tuple(rows), compared=tuple(compare(rows, BASE, "dice")))
    said = answer([equal], BASE)
    assert "nothing is better" in said.headline and said.verdict == "open"


def test_who_has_other_folds_is_left_out_of_the_choice_and_named():
    chosen = measured("validation", **{BASE: 0, OURS: 0.03})
    stray = replace(chosen.values[0], model=Model(OTHER, "2d"), fold="4", value=0.99)
    row = replace(chosen.tables[0].rows[0], model=stray.model)
    table = replace(chosen.tables[0], rows=(*chosen.tables[0].rows, row))
    chosen = replace(chosen, values=(*chosen.values, stray), tables=(table,))
    said = answer([measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.05}), chosen], BASE)
    assert said.headline == "Yes: MeanTeacher is better than Baseline on the test cases."
    left_out = f"{OTHER.removeprefix('Semi').removesuffix('Trainer')} was left out of that choice"
    assert any(sentence.startswith(left_out) for sentence in said.sentences)


def test_several_methods_without_validation_are_not_ranked():
    said = answer([measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.02})], BASE)
    assert said.headline == "Yes: 2 of 2 methods are better than Baseline on the test cases."
    assert any("not confirmed" in sentence for sentence in said.sentences)
    assert "corrected for 2 methods" in " ".join(said.sentences)


def test_shorter_distances_are_better():
    said = answer([measured("test", "hd95_edge_mm", **{BASE: 0, OURS: -0.1})], BASE)
    assert said.verdict == "better" and f"{MINUS}0.10 mm" in said.sentences[0]


def test_one_trainer_alone_is_nothing_to_compare():
    said = answer([measured("test", **{BASE: 0})], BASE)
    assert "No other method" in said.sentences[0] and said.compared is None
    both = answer([measured("validation", **{OURS: 0.2, "OtherTrainer": 0})], BASE).sentences
    assert both[1].startswith("On the validation cases, best first (Dice): MeanTeacher 0.")


# ---- words and charts ----


def test_numbers_and_names_are_written_for_people():
    assert signed(-0.0001, "dice") == "0.000" and signed(-0.012, "dice") == f"{MINUS}0.012"
    assert (
        in_points(0.0142, "dice") == "+1.4" and in_points(-0.631, "hd95_edge_mm") == f"{MINUS}0.63"
    )
    assert signed(NAN, "dice") == DASH and metric_title("nsd_surfel_2mm") == "NSD (surfel, 2mm)"
    assert short_name(OURS) == "MeanTeacher" and short_name("nnUNetTrainer") == "nnUNetTrainer"


CUTS = [n / 97 for n in range(1, 97)]


def test_an_axis_has_round_ticks_and_room():
    axis = axis_of([0.61, 0.94])
    assert axis.low < 0.61 and axis.high > 0.94 and axis.ticks == (0.6, 0.7, 0.8, 0.9)
    assert [axis.written(tick) for tick in axis.ticks] == ["0.6", "0.7", "0.8", "0.9"]
    assert Axis(0, 1, (0, 0.25, 0.5)).written(0.25) == "0.25"
    narrow = [axis_of([low, low + width], wanted=3) for low in CUTS for width in CUTS]
    assert min(len(one.ticks) for one in narrow) >= 2
    assert axis_of([NAN]).ticks and axis_of([3.0, 3.0]).high > 3


def test_charts_are_drawn_of_anything():
    axis = Axis(0, 1, (0, 0.5, 1))
    row = interval_row(axis, 0.5, 0.25, 0.75, "better", "a & b")
    assert 'x1="25.0%"' in row and 'cx="50.0%"' in row and "a &amp; b" in row
    assert '<line class="bar' not in interval_row(axis, 0.5, NAN, NAN, "", "one case")
    box = box_row(axis, {"<x>": 0.2, "y": 0.4, "z": NAN}, 0, "box")
    assert box.count('class="case"') == 2 and "&lt;x&gt;" in box
    assert 'class="box"' not in box_row(axis, {"z": NAN}, 0, "nothing")
    many = curves([(1, (range(1, 1001), np.linspace(1, 0.001, 1000).tolist()))], "x", log=True)
    assert many.count(",") <= 160 and ">0.01<" in many
    assert 'class="alone"' in curves([(0, ([1], [0.5]))], "one epoch")
    assert curves([(0, ([1, 2], [NAN, NAN]))], "nothing")
    bars = histogram([0.1, 0.2], [0.2, 0.9])
    assert 'class="kept"' in bars and 'class="dropped"' in bars


def test_pictures_have_no_third_axis_to_tell():
    """nnU-Net gives it a spacing of 999."""
    picture = {"spacings": [[999, 1, 1], [999.0, 0.5, 0.5]], "shapes_after_crop": [[1, 64, 80]] * 2}
    assert dict(fingerprint_facts(picture)) == {
        "shape, median": "1 x 64 x 80",
        "spacing (mm), median": "0.75 x 0.75 (0.5 x 0.5 to 1 x 1)",
    }
    volume = {"spacings": [[3.0, 1.0, 1.0]]}
    assert dict(fingerprint_facts(volume)) == {"spacing (mm), median": "3 x 1 x 1"}


def test_long_names_break_between_words_and_stay_escaped():
    assert breakable("MeanTeacher") == "Mean<wbr>Teacher" and breakable("UA-MT 2d") == "UA-MT 2d"
    assert breakable("a<bC") == "a&lt;b<wbr>C"
