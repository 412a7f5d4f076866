"""The report: one source for every number, nothing false in awkward studies, a page that stands
alone.
"""

import copy
import html
import json
import re

import numpy as np
import pandas as pd
import pytest
import studies

from helpers import figures, tables
from helpers.analyse_readings import (
    descriptions,
    joined,
    primary_measure,
    published,
    publishing,
    release,
    report,
    report_figures,
    results,
    texts,
)
from helpers.assemble_reading_set import seal
from helpers.runner import folders
from helpers.statistics import accuracy, agreement

CONTEXT = {
    "study_texts": {},
    "study": "small",
    "run": "08_analyse_readings",
    "simulated": [],
    "reading": {},
    "shown_at": {"size": 48, "bits": 8},
    "committed_utc": "2026-01-01",
    "planned_readers": 2,
    "plan_changes": [],
    "openings": [],
    "early_openings": [],
    "frozen": "",
    "framed": "",
    "git": {},
}
FAST = {"replicates": 200, "coverage_studies": 20, "power_studies": 20}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    # The seal orders the images, and with it the simulated answers: the same in every run.
    (tmp_path / "keys" / "small").mkdir(parents=True)
    (tmp_path / "keys" / "small" / "seal").write_text("5e" * 32)
    return tmp_path


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """One study with all its figures, analysed once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("ordinary")
        patch.setenv("OUTPUTS", str(folder / "outputs"))
        patch.setenv("KEYS", str(folder / "keys"))
        yield analyse(draw=True)


def analyse(study="small", draw=False, **options):
    """What notebook 08 does, in one call: the run, results, tables, the page and its text.

    Without `draw` no figures.
    """
    studies.make(study, **options)
    run = studies.begin(study, "08_analyse_readings", **FAST)
    set_run, reading_run = run.reads("06_assemble_reading_set"), run.reads("07_read_cases")
    readers = reading_run.read("readers.csv")
    staying = joined.not_withdrawn(readers)
    reason = "a reader withdrew" if len(staying) < len(readers) else ""
    key = seal.unseal(
        set_run.folder / "reading_set", set_run.folder / "sealed", study, staying, reason
    )
    context = report.context(run, set_run, reading_run, key.attrs["unsealed"])
    nearest, given = (
        run.reads("05_audit_images").read("nearest.csv"),
        reading_run.read("readings.csv"),
    )
    found, frames = results.analyse(run.parameters, key, given, readers, nearest)
    drawn = publishing.draw(run, found, frames, set_run) if draw else {}
    publishing.write(run, found, frames, drawn, context)
    sources = [run.reads(name) for name in sorted(key["run"].dropna().unique())]
    release.write(run, found, frames, sources, context)
    page = (run.folder / "report.html").read_text()
    text = re.sub(
        r"\s+",
        " ",
        html.unescape(
            re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", " ", page, flags=re.S))
        ),
    )
    return run, found, frames, page, text


def test_a_figure_without_title_and_note_is_one_sentence(ordinary):
    with pytest.raises(LookupError, match="Figure 'new' .* add a part '## new'"):
        publishing.finish(ordinary[0], {"new": None}, {})


def test_an_ordinary_study(ordinary):
    run, found, frames, _, text = ordinary
    stored = json.loads((run.folder / "results.json").read_text())
    assert {name: stored[name] for name in found} == json.loads(results.as_json(found))
    for row in found["headline"]:
        labels = frames["answers"].query(
            "presentation == 1 and modality == @row['modality'] and origin == @row['origin']"
        )
        wide = labels.pivot(index="image_id", columns="reader", values="label")
        assert row["all_real"]["count"] == (wide == "real").all(axis=1).sum()
        assert row["all_uncertain"]["count"] == (wide == "uncertain").all(axis=1).sum()
        assert row["two_fake"]["count"] == ((wide == "fake").sum(axis=1) >= 2).sum()
        assert f"{row['images']} {row['origin']} {texts.KINDS[row['modality']]}" in text
    for row in frames["subgroups"].query("measure == 'called fake'").to_dict("records"):
        shown = f"{row['images']} {row['count']} of {row['answers']}"
        shown += f" {texts.percent(row['estimate'])}"
        held = (
            texts.interval(row["low"], row["high"]) if row["low"] == row["low"] else row["reason"]
        )
        assert f"{row['truth']} {shown} {held}".replace("\u00a0", " ") in text
    renamed = {"reader_summary": "readers", "findings_counted": "findings"}
    lists = {
        renamed.get(name, name): frame
        for name, frame in frames.items()
        if name not in ("per_image", "answers")
    }
    assert {name: len(stored[name]) for name in lists} == {
        name: len(frame) for name, frame in lists.items()
    }
    for name in frames:
        tables.read(run.folder / "tables" / f"{name}.csv")
    for name in (
        "flow",
        "label_matrix",
        "agreement_intervals",
        "roc",
        "gallery_real",
        "gallery_uncertain",
        "gallery_fake",
    ):
        assert {path.suffix for path in (run.folder / "figures").glob(f"{name}.*")} == {
            ".png",
            ".svg",
            ".pdf",
        }


def test_the_page_stands_alone_and_shows_no_code(ordinary):
    _, _, _, page, text = ordinary
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert "import " not in text
    assert "Traceback" not in text
    assert "nan" not in text.split()
    assert "None" not in text.split()


def test_simulated_is_said_where_it_cannot_be_missed(ordinary):
    run, _, _, page, text = ordinary
    assert run.simulated == ["phantom cases", "readers"]
    assert text.index("SIMULATED") < text.index("called real by both readers")
    captions = re.findall(r"<(?:figcaption|caption)>(.*?)</", page)
    assert captions
    assert all("simulated" in caption for caption in captions)
    assert tables.read(run.folder / "tables" / "agreement.csv")["simulated"].all()


def test_a_real_study_is_not_called_simulated(place):
    run, _, _, _, text = analyse(simulated=False)
    assert run.simulated == []
    assert not re.search(r"SIMULATED|Simulated:|\(simulated\)", text)


def test_repeats_training_and_withdrawn_readers_do_not_count(place):
    _, found, frames, _, text = analyse(readers=3, withdrawn=(0,), training=2, repeats=5)
    assert found["flow"]["images"] == 24
    assert found["flow"]["answers"] == 48
    assert found["flow"]["repeat_answers"] == 10
    assert found["flow"]["withdrawn"] == 1
    assert frames["agreement"].query("group == 'all'")["images"].max() == 24
    assert {row["images"] for row in found["intra_reader"] if row["coefficient"] == "percent"} == {
        5
    }
    assert not frames["answers"]["image_id"].isin([f"xrayr{n:02d}" for n in (6, 7)]).any()
    assert "opened before all planned readers had locked their answers" in text


def test_all_labels_equal(place):
    _, found, frames, _, text = analyse(answer=lambda reader, image, random: "real")
    agreed = frames["agreement"].query("group == 'all'").set_index("coefficient")
    assert agreed.estimate[["percent", "gwet"]].tolist() == [1, 1]
    assert agreed.reason["cohen"]
    assert "All answers of R1 (24 of 24 images answered), R2 (24 of 24" in text
    assert "Cohen's kappa has no value: all ratings are in one category" in text
    assert found["headline"][0]["all_real"]["count"] == 6
    assert "substantial" not in text
    assert (
        "Gwet's AC1 is 1.00 (no interval: every image shows the same agreement, so its"
        " variation cannot be estimated), over 24 images." in text
    )
    assert "Percent agreement is 100 % (95 % interval 86 to 100 %)." in text
    assert "1.00 to 1.00" not in text


def test_a_reader_missing_half(place):
    _, found, _, _, text = analyse(
        skips=lambda reader, position: reader == 1 and position > 12, repeats=0
    )
    assert found["design"]["complete_images"] == 12
    assert found["flow"]["missing_answers"] == 12
    assert "12 of 48 answers are missing" in text
    assert "were to be labelled real, fake or uncertain by 2 readers" in text
    assert "over 24 images, 12 of them with one answer only." in text
    assert "24 images, 36 answers)." in text
    for row in found["headline"]:
        assert row["all_real"]["total"] <= 12
        assert row["all_real"]["total"] < row["images"] or re.search("lacks? an answer", text)
    assert "No image was read twice" in text
    assert "Percent agreement" in text and " 12 with one answer only " in text
    assert "no image was shown a second time without notice" in text
    assert "an answer could not be changed" in text
    assert found["multireader"]["delong"]["incomplete"] == 12
    assert found["multireader"]["delong"]["dropped"] == 0


def test_no_real_images(place):
    _, found, _, _, text = analyse(per=studies.NONE_REAL, confidence="none")
    assert "Only generated images were read" in text
    assert "nothing here measures detection" in text
    assert found["multireader"]["delong"]["reason"].startswith("fewer than two real images")
    assert "no real images" in text
    assert "wrongly called fake" not in text
    assert found["power"] == []
    assert "the ROC curves have only three levels" not in text
    assert "ROC curves run from “real” through “uncertain” to “fake”;" in text


def test_one_image_is_spoken_of_as_one(place):
    run, _, _, _, text = analyse(per={"xray": (0, 1)}, repeats=0)
    assert "1 image, 2 readers analysed (2 planned)" in text
    assert not re.search("(?<!of )1 images", text)
    card = (run.folder / "release" / "README.md").read_text()
    assert "labelled 1 image (1 generated, 0 real)" in card
    _, _, frames, _, text = analyse("few", per={"xray": (3, 1)}, prompts=1)
    held = frames["agreement"].query("group == 'all'").set_index("coefficient")["low"].notna()
    assert held[held].index.tolist() == ["percent"]
    assert "With fewer than 10 images only percent agreement has an interval." in text
    assert "The 1 generated image came from 1 prompt" in text


def test_one_reader_is_spoken_of_as_one(place):
    run, _, _, _, text = analyse(draw=True, readers=1, training=0)
    assert "by 1 reader; this reader stated no prior knowledge of AI." in text
    assert "none of them" not in text.split("Which images fool readers")[0]
    assert "No training case was shown before the read;" in text
    assert "here there is 1" in text
    assert "at least two readers" not in text
    assert not (run.folder / "figures" / "gallery_fake.png").exists()
    assert re.search(r"Pleural effusion \d+ \d+ 0 of 0 – – no image has two ratings", text)
    assert "There was one reader, so agreement between readers cannot be measured." in text
    assert "With 1 reader, the results may not hold for readers in general" in text
    assert "the area of this reader is" in text and "these readers" not in text
    assert "images, the reader named a condition" in text and "readers named" not in text
    assert "no p-value for readers in general" in text


def test_a_reader_who_stopped_before_the_repeats(place):
    _, _, _, _, text = analyse(
        answer=lambda reader, image, random: "fake",
        skips=lambda reader, position: reader == 1 and position > 6,
    )
    alike = (
        r"All answers of R1 \(24 of 24 images answered\), R2 \(\d+ of 24 images answered\) are “f"
    )
    assert re.search(alike, text)
    assert "R2 labelled no image twice: intra-reader agreement is unknown." in text
    assert "none of them among these" not in text


def test_a_reader_who_answers_nothing_is_said_to_have_answered_nothing(place):
    _, _, _, _, text = analyse(readers=3, skips=lambda reader, position: reader == 2)
    assert "R3 answered nothing. " in text
    assert "3 readers (1 of them answered nothing) used separate pages" in text
    assert "R3 answered nothing that counts here." in text
    assert "the 2 readers who answered" in text.lower()
    assert "– called real by all 3 readers (no image has the answers that this needs)" in text
    assert "R3 sensitivity no answers to generated images" in text
    assert "no real images" not in text


def test_a_share_has_one_interval_wherever_it_is_told(ordinary):
    frames = ordinary[2]
    told = (
        frames["accuracy"]
        .query("policy == 'own' and measure == 'fake of generated' and stratum == 'all'")
        .set_index("reader")
    )
    grouped = (
        frames["subgroups"]
        .query("by == 'reader' and measure == 'called fake' and truth == 'generated'")
        .set_index("group")
    )
    assert told[["low", "high"]].to_numpy() == pytest.approx(
        grouped.loc[told.index, ["low", "high"]].to_numpy(dtype=float)
    )


def test_the_size_shown_and_a_hasty_read_are_said(ordinary):
    _, found, _, _, text = ordinary
    assert (
        "brought to one size (48 × 48 pixels)" in text
        and "Images were shown at 48 × 48 pixels: fine detail" in text
    )
    assert "hardly long enough" not in text
    hasty = copy.deepcopy(found)
    hasty["readers"][0]["median_seconds"] = 0.4
    said = texts.written(hasty, CONTEXT)["warnings"]
    assert said == [
        "R1 had a typical image on screen for 0.4 s, which is hardly long enough to look at it."
    ]


def test_equivalence_that_resampling_does_not_confirm_is_said(ordinary):
    found = copy.deepcopy(ordinary[1])
    found["multireader"]["equivalence"] |= {"p": 0.01, "equivalent": True, "reason": ""}
    general = {"estimate": 0.51, "se": 0.04, "shown": [0.43, 0.59], "readers": 6}
    general |= {"statistic": 0.2, "df": 40.0, "p": 0.8}
    found["multireader"]["general all"] |= general
    for low, said in ((0.34, True), (0.45, False)):
        found["multireader"]["bootstrap"] |= {"low": low, "high": 0.59}
        written = texts.written(found, CONTEXT)["readers in general"]
        assert any("does not confirm the equivalence" in text for text in written) == said
        primary = {"measure": "area", "general": True, "low": 0.43, "high": 0.59, "reason": ""}
        found["primary"] |= primary
        lead = texts.written(found, CONTEXT)["lead"][0]
        assert ("no better than chance" in lead) != said


@pytest.mark.parametrize("fooled, said", [(0, "None"), (1, "1"), (2, "2")])
def test_one_is_was_and_several_are_were(ordinary, fooled, said):
    found = copy.deepcopy(ordinary[1])
    found["fooled"] |= {"fooled": fooled}
    verb, whom = ("were", "them") if fooled == 2 else ("was", "it")
    sentence = f"{said} of 12 generated images {verb} called real by more readers than called"
    sentence += f" {whom} fake ("
    assert texts.written(found, CONTEXT)["in short"][1].startswith(sentence)


def test_what_nobody_labelled_is_not_counted_as_called_real_by_nobody(place):
    """Each of two readers labels the first image alone, which is real; then also the second."""
    _, found, _, _, text = analyse(skips=lambda reader, position: position > 1)
    assert found["fooled"]["generated"] == 0 and found["design"]["generated"] == 12
    assert "No generated image was labelled." in text and "called real by more" not in text
    assert "gave the same label to 100 % of the images that both labelled" in text
    _, found, _, _, text = analyse(skips=lambda reader, position: position > 8)
    number = found["fooled"]["generated"]
    assert 1 < number < 12
    assert text.count(f"of {number} generated images that somebody labelled were called real") == 2


def test_one_reader_has_an_area_and_no_mean(place):
    _, _, _, _, text = analyse(readers=1, per={"xray": (8, 8), "ct": (8, 8)})
    assert "The area under the ROC curve is" in text and "For this reader the area under" in text
    assert not re.search(
        r"mean areas \d|mean area under", text[: text.index("reporting items Open")]
    )


def test_in_short_does_not_repeat_the_cards(ordinary):
    found, page = ordinary[1], ordinary[3]
    cards = re.sub(r"<[^>]+>|\s+", " ", page[page.index('class="cards"') : page.index("<nav>")])
    cards = re.sub(" +", " ", html.unescape(cards))
    for sentence in texts.written(found, CONTEXT)["in short"]:
        words = sentence.split()
        for start in range(len(words) - 5):
            assert " ".join(words[start : start + 6]) not in cards, sentence


def test_items_name_sections_that_exist(ordinary):
    _, found, _, page, _ = ordinary
    sections = {html.unescape(title) for title in re.findall(r"<h2[^>]*>([^<]*)</h2>", page)}
    quoted = [
        title
        for row in texts.checklist(found, CONTEXT)
        for title in re.findall("“([^”]*)”", row["text"])
    ]
    assert set(quoted) - {"uncertain"} and set(quoted) - {"uncertain"} <= sections


def test_the_interval_of_repeated_answers_is_that_of_the_table(ordinary):
    found = copy.deepcopy(ordinary[1])
    for row in found["intra_reader"]:
        row |= {"images": 9, "estimate": 8 / 9, "low": 0.4815, "high": 0.9857}
    said = " ".join(texts.written(found, CONTEXT)["intra"]).replace("\u00a0", " ")
    assert "8 of 9 repeated images (89 %; 95 % interval 48 to 99 %)" in said


def test_methods_tell_what_was_done_and_agree_with_each_other(ordinary):
    found = copy.deepcopy(ordinary[1])
    found["model"] |= {"reason": "", "readers": "these", "spread": {"images": 1.0, "prompts": 0.5}}
    for readers, general in ((2, False), (5, True), (6, True)):
        found["design"]["readers"] = readers
        found["multireader"]["general all"] |= {"readers": readers, "estimate": 0.6}
        written = texts.written(found, CONTEXT)
        methods = " ".join(written["methods"])
        assert ("Two one-sided tests" in methods) == general
        assert ("The bootstrap draws" in methods) == (readers >= 6)
        items = " ".join(row["text"] for row in texts.checklist(found, CONTEXT))
        assert ("a bootstrap" in items) == (readers >= 6)
        assert "comparisons and the effects of the mixed model only." in methods
        assert sum(text.startswith("Mixed model. ") for text in written["methods"]) == 1
        assert "Random effects: images; prompts. Readers are fixed" in written["model"][0]
        # No second number of readers beside the five that results in general need.
        assert "at least 6 readers" not in " ".join(written["limits"])


def test_only_what_was_asked_is_in_the_methods(ordinary):
    empty = {name: [] for name in ("contrasts", "once", "words", "blocks")}
    for asked in ({"label"}, {"label", "description"}):
        own = empty | {
            "noticed": None,
            "asked": {"read": {name: {"once": False} for name in asked}},
        }
        found = ordinary[1] | {"own_questions": own, "main_block": "read"}
        methods = " ".join(texts.written(found, CONTEXT)["methods"])
        assert ("and to describe the lung condition in words" in methods) == (
            "description" in asked
        )


@pytest.mark.parametrize("share, said", [(0.012, "1 percentage point "), (0.02, "points (95")])
def test_one_percentage_point_is_one_and_intervals_of_points_are_points(ordinary, share, said):
    found = copy.deepcopy(ordinary[1])
    row = {"estimate": share, "before": 0.1, "after": 0.1 + share, "low": -0.18, "high": 0.19}
    found["asked_for"]["contrast"] = row | {"general": None, "readers": 2, "reason": ""}
    text = " ".join(texts.written(found, CONTEXT)["asked for"])
    assert said in text and "95 % interval −18 to 19 for these readers" in text


def test_small_shares_are_not_nothing():
    said = [texts.percent(share) for share in (0, 0.001, 0.005, 0.994, 0.999, 1)]
    assert said == [f"{number}\u00a0%" for number in ("0", "under 1", "1", "99", "over 99", "100")]


def test_halves_are_rounded_up_and_shares_from_the_counts():
    assert texts.percent(9 / 40) == "23\u00a0%"
    assert texts.percent(1 / 8) == "13\u00a0%"
    assert texts.value(-0.125) == "−0.13"
    assert texts.value(-0.001) == "0.00"
    assert texts.value(0.285) == "0.29"
    assert texts.p_value(0.0005) == "p < .001" and texts.p_value(0.0305) == "p = .031"
    assert [texts.p_cell(p) for p in (0.0002, 0.0305, 1.0, None)] == [
        "< .001",
        ".031",
        "1.000",
        "–",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"readers": 1},
        {"readers": 4},
        {"per": {"xray": (5, 0)}},
        {"confidence": "none"},
        {"repeats": 0, "training": 0},
    ],
)
def test_other_designs_come_to_a_report_without_holes(place, options):
    _, found, _, _, text = analyse(**options)
    assert "None" not in text.split()
    assert "nan" not in text.lower().split()
    assert found["design"]["readers"] == options.get("readers", 2)
    assert ("both readers" in text) == (options.get("readers", 2) == 2)
    assert "1 readers" not in text


def test_words_with_markup_and_control_characters_stay_words(place, monkeypatch):
    monkeypatch.setitem(
        studies.WORDS, "effusion", "<b>left</b> effusion\x07 \u202e & <script>alert(1)</script>"
    )
    _, _, _, page, text = analyse()
    assert "<script" not in page
    assert "\x07" not in page
    assert "\u202e" not in page
    assert "<b>left</b> effusion & <script>alert(1)</script>" in text


def test_letters_that_a_joiner_parts_stay_one_word():
    said = texts.printable(
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0646\u062f Lu\u200bngs\ufeff Re\u00adal"
    )
    assert said == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0646\u062f Lungs Real"


def test_a_finished_run_changes_nothing(place):
    run, found, frames, _, _ = analyse()
    run.finish()
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in run.folder.rglob("*")
        if path.is_file()
    }
    again = studies.begin("small", "08_analyse_readings", **FAST)
    assert again.finished
    publishing.write(again, found, frames, {}, {})
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in run.folder.rglob("*")
        if path.is_file()
    }


def test_figures_are_the_same_bytes_every_time(ordinary):
    found = ordinary[1]
    for kind in ("png", "svg", "pdf"):
        assert figures.as_bytes(
            report_figures.reading_flow(found["flow"]), kind
        ) == figures.as_bytes(report_figures.reading_flow(found["flow"]), kind)


def test_what_does_not_fit_is_refused(place):
    key = studies.make("small")
    readings, readers = (
        tables.read(folders.outputs_folder("small") / "07_read_cases" / f"{name}.csv")
        for name in ("readings", "readers")
    )
    with pytest.raises(joined.AnalysisError, match="not in this reading set: check reading_set"):
        joined.answers(key[key["blind_id"] != readings["blind_id"][0]], readings, readers)
    with pytest.raises(joined.AnalysisError, match="twice"):
        joined.answers(key, pd.concat([readings, readings.head(1)]), readers)
    with pytest.raises(joined.AnalysisError, match="not in readers"):
        joined.answers(key, readings, readers.tail(1))
    with pytest.raises(joined.AnalysisError, match="nothing to analyse"):
        joined.answers(key, readings.head(0), readers)


def test_the_first_presentation_is_the_one_that_was_seen_first(place):
    key = studies.make(
        "small",
        answer=lambda reader, image, random: "fake" if pd.notna(image["repeat_of"]) else "real",
    )
    readings, readers = (
        tables.read(folders.outputs_folder("small") / "07_read_cases" / f"{name}.csv")
        for name in ("readings", "readers")
    )
    first = joined.answers(key, readings, readers).query("presentation == 1")
    assert (first["label"] == "real").all()
    again = joined.answers(key, readings, readers).query("presentation == 2")
    assert (again["label"] == "fake").all()


def test_beside_the_published_study(place):
    _, found, _, _, _ = analyse(per={"xray": (6, 6)})
    table = published.comparison(json.loads(results.as_json(found)), xrays=20)
    checked = tables.check(table.assign(simulated=True), "comparison")
    ct = checked[checked["what"] == "CT images labelled real by every reader"].iloc[0]
    assert (ct["published"], round(ct["published_low"], 3), round(ct["published_high"], 3)) == (
        "3 of 20",
        0.052,
        0.360,
    )
    assert pd.isna(ct["share"])
    assert "no generated CT images" in ct["here"]
    bounds = tables.check(published.bounds(), "bounds").set_index(["both_fake", "coefficient"])
    assert bounds.loc[("8", "cohen"), ["low", "high"]].astype(float).round(3).tolist() == [
        0.369,
        0.514,
    ]
    assert any(
        "0.14 to 0.36 if both called 5 fake" in sentence
        for sentence in published.could_show(published.bounds(), found)
    )
    for per, group in (({"ct": (6, 6)}, "generated"), ({"ct": (0, 12)}, "ct")):
        _, found, _, _, _ = analyse(study=f"only-{group}", per=per)
        plain = json.loads(results.as_json(found))
        axes = published.bounds_figure(published.bounds(), plain).axes[0]
        line = next(x for x in axes.lines if x.get_label() == "this study, generated CT")
        own = pd.DataFrame(plain["agreement"]).set_index(["group", "coefficient"])["estimate"]
        assert own[group]["fleiss"] in line.get_xdata()


def guess(reader, image, random):
    return random.choice(["real", "fake", "uncertain"], p=[0.3, 0.3, 0.4])


def test_guessers_are_not_told_that_they_differ_from_chance(place):
    _, found, frames, _, text = analyse(readers=6, per={"ct": (20, 20)}, answer=guess, repeats=0)
    discrimination = frames["accuracy"].query(
        "policy == 'none' and measure.str.startswith('dprime')"
    )
    known = discrimination.dropna(subset="low")
    assert ((known["low"] < 0) & (known["high"] > 0)).mean() > 0.8
    general = found["multireader"]["general all"]
    assert general["shown"][0] < 0.5 < general["shown"][1]
    # "fake" by at least two of six happens by chance in most images: the report says how often.
    row = found["headline"][0]
    assert 0.4 < row["two_fake"]["chance"] < 0.75
    chance = texts.percent(row["two_fake"]["chance"]).replace("\u00a0", " ")
    assert f"expected by chance: {chance}" in text
    assert "if each reader's labels were shuffled among the images" in text
    assert "both readers" not in text
    # All six calling an image real by chance (0.3 to the sixth) is rare, not impossible.
    assert 0 < row["all_real"]["chance"] < 0.005
    assert "expected by chance: under 1 %" in text
    # Measured for two readers; says nothing about the coefficient of six.
    assert "table of labels taken as the truth" not in text
    assert 0.1 < found["fooled"]["chance"] < 0.5


def test_perfect_readers_have_no_interval_without_width(place):
    def right(reader, image, random):
        return "fake" if image["origin"] == "generated" else "real"

    _, _, frames, _, text = analyse(
        per={"ct": (20, 20)}, answer=right, repeats=0, confidence="none"
    )
    assert "The mean area under the ROC curve is 1.00" in text
    assert not re.search(r"(?<![−\d.])(\d+(?:\.\d+)?) to \1\b", text)
    assert (frames["areas"]["low"].isna() & (frames["areas"]["reason"] != "")).all()
    assert "called 20 of 20 generated images fake (100 %; 95 % interval 84 to 100 %" in text
    assert "no interval: every generated image was scored above every real one" in text
    assert "the correction sets the value" in text
    _, _, _, _, text = analyse(
        study="six", readers=6, per={"ct": (20, 20)}, answer=right, repeats=0, confidence="none"
    )
    assert "called 100 % of the 20 generated images and 0 % of the 20 real images fake" in text


def test_readers_who_only_look_at_the_modality_are_found_out(place):
    def by_modality(reader, image, random):
        return "fake" if image["modality"] == "xray" else "real"

    per = {"xray": (2, 18), "ct": (18, 2)}
    _, found, _, _, text = analyse(per=per, answer=by_modality, confidence="none", repeats=0)
    assert found["design"]["imbalance"]["modality"]["v"] == pytest.approx(0.8)
    assert "CT, generated by api-model: 1 image;" in text and "1 images" not in text
    assert found["multireader"]["these all"]["estimate"] == pytest.approx(0.9)
    assert found["multireader"]["these stratified"]["estimate"] == 0.5
    first = text[text.index("The mean area under") : text.index("In short")]
    assert "But modality and truth are associated here" in first
    assert "Comparing X-rays with X-rays and CT with CT only, the mean area is 0.50" in first
    assert "Truth and modality are associated (Cramér's V 0.80)" in text
    # Two images of a kind: what they show, and no interval.
    assert "2 of 2 called real by both readers 100 %, no interval: only 2 images" in text
    assert "the mean area of these readers is 0.50 (no interval: " in text
    assert "0.00 to 1.00" not in text


def test_clusters_are_counted_and_widen_the_intervals(place):
    def by_prompt(reader, image, random):
        told = image["prompt_id"] if pd.notna(image["prompt_id"]) else image["patient"]
        return "fake" if int(told[1:]) % 2 else "real"

    options = {"per": {"ct": (20, 20)}, "answer": by_prompt, "repeats": 0, "training": 0}
    _, _, plain, _, _ = analyse(study="plain", **options | {"answer": guess})
    _, found, frames, _, text = analyse(study="grouped", prompts=11, **options)
    assert (found["design"]["prompts"], found["design"]["patients"]) == (11, 11)
    assert "The 20 generated images came from 11 prompts, the 20 real ones from 11 patients" in text
    rows = frames["accuracy"].query("measure == 'sensitivity' and policy == 'wrong'")
    assert rows["clusters"].eq(11).all()
    width = (rows["high"] - rows["low"]).iloc[0]
    low, high = accuracy.wilson(int(rows["count"].iloc[0]), 20)
    assert width > 1.2 * (high - low)
    assert "linearisation over the images, summed within prompts and patients" in text
    assert "This interval was checked" not in text  # the simulated images are independent
    assert plain["accuracy"].query("measure == 'sensitivity'")["clusters"].max() == 20


def test_missing_answers_are_said_first_and_all_given_ones_count(place):
    lost = np.random.default_rng(5).random((6, 200)) < 0.3
    options = {"readers": 6, "per": {"ct": (20, 20)}, "repeats": 0}
    _, found, _, _, text = analyse(skips=lambda reader, position: lost[reader, position], **options)
    general = found["multireader"]["general all"]
    assert (general["images"], general["dropped"]) == (40, 0)
    assert general["answers"] == found["flow"]["answers"]
    first = text[: text.index("In short")]
    assert f"{found['flow']['answers']} of 240 answers were given" in first
    assert "of the generated images and" in first
    assert "of the real images that they answered fake" in first
    # Fewer answers are fewer votes: the chance level must be that of the answers given.
    row = found["headline"][0]["two_fake"]
    _, complete, _, _, _ = analyse(study="complete", **options)
    assert row["chance"] < complete["headline"][0]["two_fake"]["chance"] - 0.1
    assert f"6 readers, 40 images, {general['answers']} answers" in first


def test_what_is_left_out_is_said(place):
    _, _, _, _, text = analyse(
        readers=3,
        per={"xray": (0, 6), "ct": (6, 0)},
        skips=lambda reader, position: reader == 2 and position > 1,
        answer=lambda reader, image, random: "uncertain",
    )
    assert "but areas under the ROC curve only those of the 2 readers with two answers" in text
    assert "only real or only generated, among modalities of two or more images: CT, X-ray" in text
    assert "can see, apart from the confidence" not in text, "it does not count for uncertain"
    _, _, _, _, text = analyse(study="no-real-ct", per={"xray": (6, 6), "ct": (0, 12)})
    assert "Over the 12 images of a modality with answers of every reader to both kinds" in text
    assert "12 images); only modalities with two answers of every reader to each kind" in text
    assert "CT with CT" not in text


def test_what_rests_on_one_person_is_not_generalised(place):
    _, _, frames, _, text = analyse()
    rows = frames["subgroups"].query("by in ('experience', 'prior knowledge of AI')")
    assert rows["low"].isna().all()
    assert "one reader: no conclusion about such readers" in text


def test_the_generator_that_is_harder_to_spot_is_named_first(place):
    def one_is_given_away(reader, image, random):
        known = image["generator"] == "api-model" and random.random() < 0.9
        return "fake" if known else guess(reader, image, random)

    options = {"readers": 6, "per": {"ct": (20, 20)}, "repeats": 0, "confidence": "none"}
    _, _, frames, _, text = analyse(answer=one_is_given_away, **options)
    row = frames["comparisons"].query("by == 'generator'").iloc[0]
    assert (row["a"], row["b"], row["images"]) == ("api-model", "tiny-sd", 40)
    assert row["general_low"] > 0 and row["p_holm"] < 0.01
    first = text[: text.index("In short")]
    assert "Images made by tiny-sd were harder to spot than images made by api-model" in first
    assert "for readers in general; p " in first
    # One reader of six knew AI: nothing is said about such readers.
    assert "Readers with and without prior knowledge of AI were not compared: fewer than 3" in text

    def alike(reader, image, random):
        return ["real", "fake", "uncertain"][(int(image["image_id"][-2:]) // 2 + reader) % 3]

    _, _, _, _, text = analyse(study="even", answer=alike, **options)
    assert "No difference was shown between images made by api-model" in text
    _, _, frames, _, text = analyse(study="pair", answer=one_is_given_away, per={"ct": (12, 12)})
    assert frames["comparisons"]["p"].isna().all()
    assert "for these readers, not for readers in general" in text


@pytest.mark.parametrize("label", ["uncertain", "fake"])
def test_one_label_throughout(place, label):
    _, found, _, _, text = analyse(answer=lambda reader, image, random: label, confidence="none")
    assert not re.search(r"d′ \(fake versus the rest\) [−\d]", text)
    assert "no interval: nothing varies from image to image" in text
    assert f"labelled every image “{label}”, which says nothing" in text
    assert text.count(f"are “{label}”: they say nothing about what these readers can see") == 1
    assert not re.search(r"(?<![−\d.])(\d+(?:\.\d+)?) to \1\b", text)
    assert found["multireader"]["these all"]["estimate"] == 0.5
    assert "every answer lies on one side of this threshold" in text


def test_the_agreement_figure_has_a_row_for_every_coefficient_even_when_none_is_defined():
    table = agreement.coefficients(
        pd.DataFrame({"R1": ["real", "fake"]}), ["real", "fake", "uncertain"]
    )
    figure = report_figures.agreement_intervals(
        table.rename_axis("coefficient").reset_index().assign(group="all")
    )
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 8 and figure.axes[0].get_ylim() == (-0.6, 7.6)
    box = figure.get_tightbbox(figure.canvas.get_renderer())
    assert box.height < 6, "inches"


TEMPLATES = sorted(folders.ROOT.glob("helpers/*/templates/*.md"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_no_tag_at_the_end_of_a_line_swallows_the_end_of_a_paragraph(path):
    """Jinja takes away the newline after a tag: with one blank line after it, none is left."""
    lines = [*path.read_text(encoding="utf-8").splitlines(), "", ""]
    for line, blank, following in zip(lines, lines[1:], lines[2:]):
        text = re.sub(r"{%.*?%}", "", line).strip()
        ends = line.endswith("%}") and text and "%}" not in text
        assert not (ends and not blank and following), line


def test_every_item_of_the_checklists_is_a_row(ordinary):
    template = folders.ROOT / "helpers/analyse_readings/templates/checklist.md"
    parts = re.split(r"^## (.+)$", template.read_text(), flags=re.M)
    items = [
        f"{guideline} | {item}"
        for guideline, said in zip(parts[1::2], parts[2::2])
        for item in re.findall(r"^- (\S+) \|", said, re.M)
    ]
    rows = pd.read_csv(ordinary[0].folder / "tables" / "checklist.csv", dtype=str)
    assert (rows["guideline"] + " | " + rows["item"]).tolist() == items


def test_the_primary_measure_cannot_change_after_the_plan_was_frozen(place, ordinary):
    studies.make("small")
    changed = studies.begin("small", "08_analyse_readings", primary="agreement")
    sealed = changed.reads("06_assemble_reading_set").folder / "sealed"
    with pytest.raises(joined.AnalysisError, match="the plan frozen before the read names 'area'"):
        primary_measure.named_before(sealed, changed)
    assert "named in the plan that was frozen before the read" in ordinary[4]


def test_the_report_is_printed(ordinary):
    run = ordinary[0]
    printed = (run.folder / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    for caption in texts.captions(ordinary[1], {}).values():
        assert len(caption) == 2


def test_many_changed_modules_are_a_number_in_a_sentence_and_a_list_in_the_appendix(ordinary):
    modules = [f"helpers/part{n}.py was changed after the reading set was sealed" for n in range(4)]
    context = CONTEXT | {"plan_changes": ["margin was 0.2 and is 0.15", *modules]}
    written = texts.written(ordinary[1], context)
    for part in ("warnings", "methods"):
        said = " ".join(written[part])
        assert "helpers/part" not in said
        assert "margin was 0.2 and is 0.15; 4 modules of its code changed (the report's" in said
    page = html.unescape(report.render(ordinary[1], context, {}).decode())
    assert all(f"<li>{module}</li>" in page for module in modules)
    assert page.count("helpers/part") == 4
    few = CONTEXT | {"plan_changes": modules[:3]}
    assert "; ".join(modules[:3]) in " ".join(texts.written(ordinary[1], few)["warnings"])


@pytest.mark.parametrize("planted", [0.0, 0.5])
def test_findings_seen_because_they_were_asked_for(planted):
    random, hits, studies_made = np.random.default_rng(8), 0, 60
    for _ in range(studies_made):
        asked = np.tile([1, 0, 0], 20)
        images = pd.DataFrame({"image_id": np.arange(60).astype(str), "asked": asked})
        images["cluster"] = images["image_id"]
        rows = images.merge(pd.DataFrame({"reader": [f"R{n}" for n in range(1, 7)]}), how="cross")
        share = 0.2 + planted * rows["asked"]
        rows["number"] = (random.random(len(rows)) < share).astype(float)
        found = descriptions.compared(rows, rows["asked"])
        hits += found["low"] <= planted <= found["high"]
    assert hits >= 0.85 * studies_made


def test_what_was_noticed_and_how_labels_changed_is_on_the_first_screen(place):
    found = analyse()[1]
    share = {"count": 3, "total": 6, "estimate": 0.5, "low": 0.19, "high": 0.81, "reason": ""}
    apart = {"estimate": 0.25, "low": 0.1, "high": 0.4, "reason": ""}
    changed = {"block": "second", "before": 0.5, "after": 0.75, "readers": 6, "images": 24} | apart
    found["own_questions"] = {
        "noticed": dict.fromkeys(("words", "said", "generated", "real"), share)
        | {"difference": apart, "general": apart},
        "contrasts": [
            changed | {"question": question, "contrast": contrast, "reader": who, "answers": 288}
            for question in ("label", "unusual", "odd")
            for contrast in ("generated minus real", "second minus first")
            for who in ("these readers", "readers in general")
        ],
        "asked": {
            "second": {
                name: {"text": text, "kind": "yes/no", "ends": "", "once": False}
                for name, text in (
                    ("label", "It is"),
                    ("unusual", "Anything unusual?"),
                    ("odd", "Odd?"),
                )
            }
        },
        "titles": {"first": "Chest images", "second": "Real or not?"},
        "once": [],
        "words": [],
        "blocks": [
            {"block": name, "title": name, "images": 24, "again": 24 if name == "second" else 0}
            | dict.fromkeys(("unaware", "tell_truth", "after_days", "pairs"))
            for name in ("first", "second")
        ],
        "counts": [],
        "agreement": [],
    }
    found["main_block"] = "second"
    page = report.render(found, CONTEXT, {}).decode()
    first, _, rest = page.partition('<h2 id="In-short">')
    assert "Readers had seen 24 of the 24 images in an earlier part" in rest
    change = "the share of right labels went from 0.50 to 0.75, a change of 0.25"
    for sentence in (
        "Before they were told, 3 of 6",
        "called the image unusual in 3 of 6 answers",
        change,
    ):
        assert sentence in first and sentence not in rest
    assert "The share of “yes” to “Odd?” in “Real or not?” was 0.50 for real and 0.75" in rest
    assert "The share of “yes” to “Anything unusual?”" not in rest


def test_words_for_kappa_are_those_of_the_printed_bounds():
    for coefficient, word in (
        (-0.02, "poor"),
        (0.0, "slight"),
        (0.204, "slight"),
        (0.206, "fair"),
        (0.404, "fair"),
        (0.41, "moderate"),
        (0.81, "almost perfect"),
    ):
        assert texts.band(coefficient) == word, coefficient


def test_a_gallery_says_how_many_of_its_images_it_shows(ordinary):
    title = texts.captions(ordinary[1], {"gallery_fake": 16}, 12)["gallery_fake"][0]
    said = "Generated images identified as fake by both readers: 16, of which 12 are shown"
    assert title == said
    title = texts.captions(ordinary[1], {"gallery_fake": 12}, 12)["gallery_fake"][0]
    assert title.endswith("both readers: 12")


def test_the_plan_was_frozen_when_the_key_was_sealed(ordinary):
    context = CONTEXT | {"openings": ["when all readers had locked their answers"]}
    said = " ".join(texts.written(ordinary[1], context)["methods"])
    assert "was frozen when the key was sealed and is unchanged." in said


def test_who_locked_after_the_key_was_opened_was_not_blinded(place):
    studies.make("late", simulated=False)
    run = studies.begin("late", "08_analyse_readings", **FAST)
    set_run, reading_run = run.reads("06_assemble_reading_set"), run.reads("07_read_cases")

    def told(utc):
        history = [{"how": "all readers locked", "utc": utc}]
        return report.context(run, set_run, reading_run, {"history": history})["early_openings"]

    assert told("2026-01-03T00:00:00.000Z") == []  # they locked on the day before
    early = told("2026-01-01T00:00:00.000Z")
    assert early == ["on 2026-01-01, before 2 readers had locked"]


def test_a_key_that_was_opened_twice_is_a_sentence(ordinary):
    openings = ["to simulate the readers' answers", "when all readers had locked their answers"]
    context = CONTEXT | {"openings": openings, "early_openings": []}
    page = " ".join(html.unescape(report.render(ordinary[1], context, {}).decode()).split())
    said = f"The key was opened {openings[0]} and again {openings[1]}."
    assert page.count(said) == 2  # in the methods and at the end


def test_a_reason_in_place_of_an_interval_may_break_over_lines(ordinary):
    page = report.render(ordinary[1], CONTEXT, {}).decode()
    table = page.partition("Findings expected and named, by reader")[2].partition("</table>")[0]
    assert "<td>only " in table
    assert not re.search(r'<td class="n">[^<]*only', table)
