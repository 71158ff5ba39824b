"""The report page: rendered from made-up run folders of every task kind, and read back as HTML."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_runs import SAMPLES, write_run

from trimtab.errors import InputError
from trimtab.pages.run_page import environment, excerpt, report
from trimtab.pages.tables import class_counts
from trimtab.results import formatting
from trimtab.results.record import read_run_folder

VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """A page read back: its visible words, its attributes and the section headings; fails on unbalanced tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open, self.words, self.headings, self.attributes = [], [], [], []
        self.tags: list[str] = []
        self.feed(source)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes the wrong tag"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rendered(run: Path) -> Page:
    return Page(report(run).read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=sorted(SAMPLES))
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return rendered(write_run(tmp_path_factory.mktemp("runs"), request.param))


def test_pages_load_nothing_and_run_nothing(page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert (
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    ) in page.attributes


def test_pages_do_not_repeat_ids_and_every_link_has_a_target(page: Page) -> None:
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for name, value in page.attributes if name == "href"} <= set(ids)


def test_every_drawing_has_a_name_and_every_place_on_it_is_a_number(page: Page) -> None:
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert sum(" chart: " in label for label in labels) == 2
    places = [value for name, value in page.attributes if name in ("cx", "cy", "x", "y", "d")]
    assert len(places) > 50
    assert not [value for value in places if "nan" in value or "inf" in value or "None" in value]


def test_single_label_page_tells_the_whole_story_in_order(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path, "five_classes"))
    assert page.headings == [
        "Scores", "Notes", "Curves", "Classes", "What was trained", "Data", "Hardest mistakes", "Before and after",
        "Settings", "Use it",
    ]  # fmt: skip
    story = [
        "Accuracy on tickets rose from 0.224 to 0.863.",
        "The method layer_norms trained 9,984 parameters of the backbone (0.044%) and 1,925 of the head in 1 min 12 s; "
        "the delta takes 43.1 KB.",
        "612 MB",
        "step 150 of 300",
        "learn the training rows by heart",
        "63 of 8,000 train rows are longer than 128 tokens",
        "Most often mistaken: refund for delivery (14); refund for billing (11); delivery for refund (9).",
        "of 22,713,216 (0.044%)",
        "of 1,925 (100%)",
        "14 rows of train occur twice.",
        "9,031 of 402,113 2.2%",
        "4 more",
        "↓ lower 1.630 0.455 −1.175 better",
        "2.13.0",
        "trimtab predict",
    ]  # fmt: skip
    place = 0
    for part in story:
        place = page.text.find(part, place)
        assert place >= 0, f"not there, or not in its place: {part}"


def test_confusion_matrix_colours_right_answers_and_mistakes_apart(tmp_path: Path) -> None:
    source = report(write_run(tmp_path, "five_classes")).read_text(encoding="utf-8")
    right, wrong = (143 / 171) ** 0.5, (14 / 171) ** 0.5
    assert (
        f'<td class="blue" style="--f:{right:.3f}" title="143 of 171 rows of refund were predicted as refund' in source
    )
    assert (
        f'<td class="orange" style="--f:{wrong:.3f}" title="14 of 171 rows of refund were predicted as deliv' in source
    )
    assert (
        '<td class="faint" style="--f:0.000" title="0 of 246 rows of delivery were predicted as account (0%)">·'
        in source
    )


def test_trained_grid_keeps_the_head_apart_and_marks_what_stayed(tmp_path: Path) -> None:
    source = report(write_run(tmp_path, "five_classes")).read_text(encoding="utf-8")
    grid = source[source.index('id="trained"') : source.index('id="data"')]
    assert 'title="layer 3, layer norm: 1,536 of 1,536 trained (100%)">1,536</td>' in grid
    assert 'title="layer 3, query: 0 of 147,840 trained (0%)">·</td>' in grid
    assert '<td style="--f:0.000" title="embeddings, query: no such parameters"></td>' in grid
    assert 'title="head"' not in grid


def test_multi_label_shows_sets_of_classes_and_no_matrix(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path, "several_labels"))
    assert "Class by class" in page.text
    assert "Confusion matrix" not in page.text
    assert "true: joy , surprise predicted: anger" in page.text
    assert "true: none predicted: sadness" in page.text


def test_regression_shows_pairs_and_numbers_and_no_classes(tmp_path: Path) -> None:
    page = rendered(write_run(tmp_path, "regression"))
    assert "Classes" not in page.headings
    assert "Largest errors" in page.headings
    assert "Pearson on likeness reached 0.854." in page.text  # undefined before training, so it did not rise
    assert "before: undefined" in page.text
    assert "sentence1" in page.text
    assert "sentence2" in page.text
    assert "--text '...' --text-pair '...'" in page.text  # one text is not enough for a pair


def test_texts_and_names_cannot_become_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    run = write_run(tmp_path, "five_classes", run=evil, method=evil, notes=[evil], survey=[evil], versions={evil: evil})
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    scores["task"] |= {"name": evil, "source": evil, "classes": [evil + str(i) for i in range(5)]}
    for row, name in zip(scores["per_class"], scores["task"]["classes"], strict=True):
        row["class"] = name
    scores["mistakes"][0] |= {"text": evil, "label": evil, "predicted": [evil]}
    scores["mistakes"][1] |= {"text": evil * 100}
    scores["settings"] = {evil: [evil]}
    (run / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    source = report(run).read_text(encoding="utf-8")
    assert "<script" not in source
    assert "<img" not in source
    page = Page(source)
    assert page.text.count("<script>alert(1)</script>") > 120
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_long_texts_are_cut_at_a_word_and_kept_whole_behind_a_click(tmp_path: Path) -> None:
    run = write_run(tmp_path, "five_classes")
    text = json.loads((run / "scores.json").read_text(encoding="utf-8"))["mistakes"][1]["text"]
    page = rendered(run)
    assert len(text) > 1000
    assert page.words.count(text) == 1
    assert page.words.count(excerpt(text)) == 1
    assert f"The whole text ({len(text):,} characters)" in page.text


def test_excerpt() -> None:
    assert excerpt("short") == "short"
    assert excerpt("one two three", 9) == "one two…"
    assert excerpt("x" * 500) == "x" * 400 + "…"


def test_odd_characters_in_a_text_do_not_stop_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, "five_classes")
    file = run / "scores.json"
    scores = json.loads(file.read_text(encoding="utf-8"))
    scores["mistakes"][0]["text"] = "half a pair \ud800, مرحبا, 日本\u2028語"
    file.write_text(json.dumps(scores), encoding="utf-8")
    assert "half a pair ?, مرحبا, 日本" in report(run).read_text(encoding="utf-8")


def test_more_than_thirty_classes_show_the_most_mistaken_and_keep_the_rest_behind_a_click(tmp_path: Path) -> None:
    names = [f"intent {i}" for i in range(77)]
    matrix = [[90 if i == j else 0 for j in range(77)] for i in range(77)]
    matrix[70][3] = 25
    per_class = [{"class": n, "precision": 0.9, "recall": 0.9, "f1": i / 100, "rows": 9} for i, n in enumerate(names)]
    run = write_run(tmp_path, "five_classes", confusion=matrix, per_class=per_class)
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    scores["task"]["classes"] = names
    (run / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    page = rendered(run)
    assert "Most often mistaken: intent 70 for intent 3 (25)" in page.text
    assert "Of 77 classes, the 30 with the most mistakes." in page.text
    assert "The 15 weakest classes" in page.text
    assert ("title", "25 of 115 rows of intent 70 were predicted as intent 3 (22%)") in page.attributes


def test_a_run_of_one_evaluation_and_undefined_losses_still_draws(tmp_path: Path) -> None:
    run = write_run(tmp_path, "five_classes", best_step=0, steps=0, stopped="interrupted", examples_per_second=None)
    line = json.loads((run / "history.jsonl").read_text(encoding="utf-8").splitlines()[0])
    (run / "history.jsonl").write_text(json.dumps(line | {"validation_loss": float("inf")}) + "\n", encoding="utf-8")
    page = rendered(run)
    assert "step 0 of 0 (the run was interrupted)." in page.text
    assert "undefined" in page.text


def test_a_worse_main_score_is_said_first(tmp_path: Path) -> None:
    run = write_run(tmp_path, "five_classes", scores={"accuracy": 0.2, "f1": 0.5, "loss": 0.1}, stopped="early")
    page = rendered(run)
    assert "Accuracy on tickets fell from 0.224 to 0.200." in page.text
    assert "step 150 of 300 (the run stopped early)." in page.text
    assert page.text.index("fell from 0.224") < page.text.index("learn the training rows by heart")


def test_a_score_on_one_row_is_not_on_several(tmp_path: Path) -> None:
    rows = SAMPLES["regression"]()[0]["rows"]
    run = write_run(tmp_path, "regression", rows=rows | {"validation": rows["validation"] | {"rows": 1}})
    assert "validation split (1 row)," in rendered(run).text


def test_report_writes_where_told_and_the_same_page_each_time(tmp_path: Path) -> None:
    run = write_run(tmp_path, "several_labels")
    elsewhere = tmp_path / "pages" / "moods.html"
    assert report(str(run), elsewhere) == elsewhere
    assert report(run) == run / "report.html"
    assert elsewhere.read_bytes() == (run / "report.html").read_bytes()


def test_commands_name_the_run_as_one_would_type_it_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "my runs", "five_classes")
    monkeypatch.chdir(tmp_path)
    text = rendered(run).text
    assert "trimtab predict 'my runs/five_classes' --text '...'" in text
    assert "trimtab evaluate 'my runs/five_classes'" in text


@pytest.mark.parametrize("name", ["scores.json", "history.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path, "five_classes")
    (run / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing from .*five_classes"):
        report(run)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a run folder"):
        report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("scores.json", '{"run"', '{"run', r"scores\.json is damaged: is not JSON"),
        ("scores.json", '"metric": "accuracy", "split"', '"split"', r"scores\.json is damaged: metric is missing"),
        ("scores.json", '"seconds": 72.4', '"seconds": "72"', "seconds should be a number, found '72'"),
        ("scores.json", '"best_step": 150', '"best_step": true', "best_step should be a whole number, found True"),
        ("scores.json", '"predicted": "delivery"', '"predicted": {}', r"mistakes\[0\]\.predicted should be text"),
        ("scores.json", '"text": "', '"words": "', r"mistakes\[0\] should have text"),
        ("scores.json", '"text_columns": ["body"]', '"text_columns": []', "text_columns should name one column or two"),
        ("scores.json", '"confusion": [[188', '"confusion": [[1], [188', "confusion should have 5 rows and columns"),
        ("scores.json", '"selected": [', '"selected": [[1], ', "trained.selected should have a row for each layer"),
        (
            "scores.json",
            '"metric": "accuracy", "split"',
            '"metric": "bleu", "split"',
            "scores lacks the main metric 'bleu'",
        ),
        ("scores.json", '"baseline": {"accuracy": 0.224, ', '"baseline": {', r"baseline lacks \['accuracy'\]"),
        ("history.jsonl", '{"step": 50,', '{"step": 50', r"history\.jsonl, line 3 is damaged: is not JSON"),
        ("history.jsonl", '{"step": 150,', '{"step": 151,', "it lacks the best evaluation, step 150"),
        ("history.jsonl", '"lr": 0.001,', "", r"history\.jsonl, line 1 is damaged: lr is missing"),
        ("history.jsonl", '"accuracy": 0.224', '"f1": 0.224', "the evaluation at step 0 lacks 'accuracy'"),
    ],
)
def test_damage_is_named_with_its_place(tmp_path: Path, name: str, old: str, new: str, fault: str) -> None:
    file = write_run(tmp_path, "five_classes") / name
    whole = file.read_text(encoding="utf-8")
    assert old in whole
    file.write_text(whole.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=fault):
        report(file.parent)
    assert not (file.parent / "report.html").exists()


def test_an_empty_history_and_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, "five_classes")
    (run / "history.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="it holds no evaluation"):
        report(run)
    (run / "scores.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"scores\.json is damaged: cannot be read"):
        report(run)


def test_fields_that_may_be_null_may_be_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, "five_classes")
    file = run / "history.jsonl"
    whole = file.read_text(encoding="utf-8")
    cut = re.sub(r', "seconds": [0-9.]+', "", whole)
    assert cut != whole
    file.write_text(cut, encoding="utf-8")
    assert "0 0 – 1.630 0.224 0.001 –" in rendered(run).text


def test_fields_from_later_versions_are_left_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path, "regression", something_new={"a": [1]})
    assert read_run_folder(run).scores["something_new"] == {"a": [1]}


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of an sRGB colour in 0..255, by WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_can_be_read_on_every_ground_of_both_themes(theme: str) -> None:
    """WCAG level AA asks a contrast of 4.5 for small text."""
    css = str(getattr(environment().get_template("base.html.j2").module, theme)())
    colours = {name: tuple(bytes.fromhex(code)) for name, code in re.findall(r"--([a-z]+): #([0-9a-f]{6})", css)}
    shades = {name: tuple(map(int, code.split())) for name, code in re.findall(r"--([a-z-]+): (\d+ \d+ \d+)", css)}
    assert len(colours) == 8
    assert len(shades) == 2
    for ground in [colours["paper"], colours["sheet"], colours["hollow"], *shades.values()]:
        assert contrast(colours["ink"], ground) >= 4.5
    for words in ("muted", "blue", "orange"):
        assert contrast(colours[words], colours["paper"]) >= 4.5
    assert contrast(colours["muted"], colours["hollow"]) >= 4.5


def test_of_rows_without_labels_no_class_is_counted() -> None:
    splits = {
        "train": {"rows": 4, "labelled": 3, "classes": {"yes": 3, "no": 0}},
        "test": {"rows": 20, "labelled": 0, "classes": {"yes": 0, "no": 0}},
    }
    found = {
        name: [(cell.text, cell.fraction) for cell in cells] for name, cells in class_counts(splits, ["yes", "no"])
    }
    assert found == {"yes": [("3", 1.0), ("–", 0.0)], "no": [("0", 0.0), ("–", 0.0)]}


def test_a_calibration_error_is_not_called_worse_than_that_of_a_head_that_knows_nothing() -> None:
    metrics = {name: {"higher_is_better": name == "accuracy"} for name in ("accuracy", "calibration_error")}
    scores = {
        "metrics": metrics,
        "baseline": {"accuracy": 0.2, "calibration_error": 0.01},
        "scores": {"accuracy": 0.9, "calibration_error": 0.05},
    }
    assert formatting.better(scores, "accuracy") is True
    assert formatting.better(scores, "calibration_error") is None


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("a linear probe of the frozen encoder", "rose from 0.224 (a linear probe of the frozen encoder) to 0.863."),
        ("one prediction for all rows", "reached 0.863."),
        ("one answer for all rows", "reached 0.863."),
        (None, "rose from 0.224 to 0.863."),
    ],
)
def test_the_score_beside_the_result_is_named(tmp_path: Path, start: str | None, said: str) -> None:
    page = rendered(write_run(tmp_path, "five_classes", start=start))
    assert f"Accuracy on tickets {said}" in page.text
    assert f"{start or 'before'}: 0.224" in page.text


def test_the_interval_stands_beside_the_score_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    interval = {"metric": "accuracy", "level": 0.95, "rows": 1004, "low": 0.84, "high": 0.88}
    assert (
        "95% confidence interval 0.840 to 0.880, 1,004 rows"
        in rendered(write_run(tmp_path / "a", "five_classes", interval=interval)).text
    )
    with pytest.raises(InputError, match="interval"):
        report(write_run(tmp_path / "b", "five_classes", interval=3))
