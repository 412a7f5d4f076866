"""Two images side by side: how they are paired, what the design refuses, and whether the analysis
finds what simulated readers were given.
"""

import numpy as np
import pandas as pd
import pytest
import reading_studies
from test_readers import begin
from test_report import CONTEXT, analyse

from helpers import protocol_tables, study, tables
from helpers.analyse_readings import pairs as analysed
from helpers.analyse_readings import questions, report, texts
from helpers.assemble_reading_set import blocks, envelope, pairs, seal
from helpers.reading import setting

SINGLE = reading_studies.BLOCK | {"block": "single"}
PAIRS = reading_studies.BLOCK | {"block": "pairs", "order": 2, "images": "pairs", "pairs": "true"}
WHICH = {"id": "which", "text": "Which?", "kind": "choice", "options": "left=L|right=R"}
WHICH |= {"required": "true"}
LABEL = reading_studies.questions()[len(reading_studies.YOU)]
SURE = {"id": "confidence", "block": "pairs", "text": "How sure?", "kind": "scale"}
SURE |= {"options": "Guess|Fairly sure|Certain"}
DESIGNED = protocol_tables.build([LABEL, WHICH], [SINGLE, PAIRS], "s")


@pytest.mark.parametrize(
    ("asked", "shown", "said"),
    [
        ([LABEL], [{}, {}], r"must ask 'which' \(pairs\)"),
        (
            [LABEL, WHICH | {"block": "single|pairs"}],
            [{}, {}],
            "'which': it is asked in part .*, which shows no pairs",
        ),
        (
            [LABEL | {"block": "single|pairs"}, WHICH],
            [{}, {}],
            "'label': it is asked in part .*, which shows pairs",
        ),
        ([LABEL, WHICH | {"options": "left=L|right=R|none=N"}], [{}, {}], "a forced choice"),
        ([LABEL, WHICH | {"required": ""}], [{}, {}], "a forced choice"),
        ([LABEL, WHICH], [{}, {"images": ""}], "has pairs but shows no images"),
        ([LABEL, WHICH], [{"linked": "true"}, {}], "has linked but no pairs"),
    ],
)
def test_a_design_of_pairs_that_does_not_fit_is_named(asked, shown, said):
    rows = [block | more for block, more in zip((SINGLE, PAIRS), shown)]
    with pytest.raises(protocol_tables.ProtocolError, match=said):
        protocol_tables.build(asked, rows, "mine")


def presented(pairs_of: int, seed: int = 0, **changes) -> pd.DataFrame:
    """Images of a block of pairs, in two modalities, in any order."""
    rows = [
        {"image_id": f"{origin[0]}{modality}{n}", "origin": origin, "modality": modality}
        | {"finding": ("effusion", "nodule", "")[n % 3], "view": ("PA", "AP")[n % 2]}
        for modality in ("ct", "xray")
        for origin in ("real", "generated")
        for n in range(pairs_of)
    ]
    table = pd.DataFrame(rows).assign(block="pairs", training=False, repeat=False, **changes)
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


def secret(said: str) -> bytes:
    return envelope.derive("pairs_test", "test", said.encode())


@pytest.mark.parametrize("count", [7, 8])
def test_pairs_are_matched_and_sides_balanced(study_folders, count):
    found = pairs.paired(presented(count), DESIGNED, secret)
    sides = []
    for left, both in found.groupby("left"):
        assert sorted(both["origin"]) == ["generated", "real"] and both["modality"].nunique() == 1
        assert both["finding"].nunique() == both["view"].nunique() == 1
        sides.append((both["modality"].iloc[0], left.startswith("g")))
    assert len(sides) == 2 * count, "every image is in one pair"
    balance = pd.DataFrame(sides, columns=["modality", "left"]).groupby("modality")["left"].sum()
    assert ((balance - count / 2).abs() < 1).all() and abs(balance.sum() - count) < 1
    again = pairs.paired(presented(count, seed=1), DESIGNED, secret)
    assert {*again["left"]} == {*found["left"]}, "the order of the rows changes nothing"
    other = pairs.paired(presented(count), DESIGNED, lambda said: secret(f"other {said}"))
    assert {*other["left"]} != {*found["left"]}, "who has not the seal cannot know the sides"


def test_what_cannot_be_matched_is_paired_all_the_same(study_folders):
    shown = presented(4, finding="effusion")
    shown.loc[shown["origin"] == "real", "finding"] = "hernia"
    assert pairs.paired(shown, DESIGNED, secret)["left"].notna().all()
    twice = pd.concat([shown, shown.iloc[:1].assign(repeat=True)], ignore_index=True)
    assert len(pairs.paired(twice, DESIGNED, secret)) == len(shown), "no repeats in pairs"


def test_unequal_numbers_are_found_before_anything_is_drawn():
    rows = [
        {"origin": origin, "modality": modality, "count": 3 + (origin, modality).count("real")}
        for origin in ("real", "generated")
        for modality in ("ct", "xray")
    ]
    wanted = pd.DataFrame(rows).assign(training=False)
    wanted = pd.concat([wanted.assign(group=f"{name}") for name in ("main", "pairs")])
    said = [sentence for *_, sentence in blocks.misfits(wanted, DESIGNED)]
    assert any("draw.csv gives it 3 generated and 4 real ct images in its" in one for one in said)


def choices(random, correct: float, left: float, readers=8, pairs_of=40, spread=0.05):
    """Answers of readers who pick the generated image with probability `correct`, and the left one
    by `left` more often than half; each reader differs a little, and pairs of a prompt are alike.
    """
    prompt = random.integers(0, 14, pairs_of)
    key = []
    for n in range(pairs_of):
        sides = ("generated", "real") if n % 2 else ("real", "generated")
        for place, origin in enumerate(sides):
            key.append({"blind_id": f"b{2 * n + place}", "pair": f"b{2 * n}", "origin": origin})
            key[-1] |= {"image_id": f"i{n}{origin[0]}", "block": "pairs", "modality": "ct"}
            key[-1] |= {"patient": f"p{n}" if origin == "real" else None}
            key[-1] |= {"prompt_id": f"q{prompt[n]}" if origin == "generated" else None}
    key = pd.DataFrame(key).assign(training=False, finding="", view="", repeat_of=pd.NA)
    of_reader = random.uniform(-spread, spread, (2, readers))
    of_prompt = random.choice([-0.1, 0.1], 14)[prompt]
    given = []
    for reader in range(readers):
        for n in range(pairs_of):
            right = correct + of_reader[0, reader] + of_prompt[n]
            chance = (right if n % 2 else 1 - right) + left + of_reader[1, reader]
            value = "left" if random.random() < chance else "right"
            row = {"reader_id": f"r{reader}", "block": "pairs", "blind_id": f"b{2 * n}"}
            given.append(row | {"question": "which", "value": value})
    people = pd.DataFrame({"reader_id": [f"r{n}" for n in range(readers)]})
    return key, pd.DataFrame(given), people


def found_in(key, given, people) -> pd.DataFrame:
    compared = analysed.of_key(key)
    answers = questions.scored(key, given, people, compared)
    return analysed.analyse(DESIGNED, compared, answers)[1]["pair_shares"]


def held_and_seen(studies: int) -> tuple[int, int, int]:
    """In how many studies the intervals hold the planted share correct and the planted bias, and
    how many show the bias.
    """
    random, counts = np.random.default_rng(3), np.zeros(3, int)
    for _ in range(studies):
        shares = found_in(*choices(random, correct=0.7, left=0.15, pairs_of=36))
        general = shares[shares["reader"] == "readers in general"].set_index("measure")
        correct, left = (general.loc[measure] for measure in ("correct", "left"))
        counts += [
            correct["low"] <= 0.7 <= correct["high"],
            left["low"] <= 0.65 <= left["high"],
            left["low"] > 0.5,
        ]
    return tuple(counts)


def test_a_planted_bias_to_the_left_and_share_correct_are_within_the_intervals():
    correct, left, seen = held_and_seen(12)
    assert min(correct, left) >= 10 and seen >= 9


@pytest.mark.soak
def test_intervals_of_pairs_hold_what_they_promise():
    correct, left, seen = held_and_seen(300)
    assert min(correct, left) >= 274 and seen >= 240, (correct, left, seen)  # 95 % less 2 s.d.


def test_pairs_that_share_a_prompt_or_a_patient_are_one_cluster():
    key = choices(np.random.default_rng(0), 0.7, 0, pairs_of=4)[0].set_index("blind_id")
    key.loc[["b0", "b1", "b2", "b3"], "prompt_id"] = [None, "q1", "q1", None]
    key.loc[["b4", "b7"], "patient"], key.loc[["b5", "b6"], "prompt_id"] = "p9", ["q2", "q3"]
    assert analysed.of_key(key.reset_index())["cluster"].nunique() == 2
    key.loc["b6", "prompt_id"] = "q1"
    assert analysed.of_key(key.reset_index())["cluster"].nunique() == 1, "also through others"


def test_simulated_readers_of_pairs_end_in_a_table_with_what_was_planted(study_folders):
    asked = [*reading_studies.questions(), WHICH, SURE]
    made = reading_studies.make(
        *(study_folders, 10, 0), blocks=[SINGLE, PAIRS], asked=asked, readers="simulated",
        simulated_pairs=1.0,
    )  # fmt: skip
    run = begin()
    assert study.collect(run) == ""
    assert run.read("readings.csv")["block"].eq("single").all(), "a pair has no label"
    given = tables.read(run.folder / "answers.csv", "given_answers")
    found, more = questions.analyse(
        protocol_tables.load(made), opened(made), given, run.read("readers.csv")
    )
    block = found["pairs"][0]
    assert (block["pairs"], block["answers"], block["generated_left"]) == (10, 20, 4)
    shares = more["pair_shares"].set_index(["reader", "measure"])
    assert shares.loc[("these readers", "correct"), "count"] == 20
    assert shares.loc[("these readers", "left"), "count"] == 8, "who sees it has no preference"
    assert shares.index.isin(["correct, confidence Certain"], level=1).any()
    assert tables.check(more["pairs"], "pairs")["answers"].eq(2).all()
    both = more["question_answers"].query("question == 'which'")
    assert both["image_id"].str.contains("|", regex=False).all() and set(both["origin"]) == {"pair"}
    assert "pairs" not in set(more["question_contrasts"].get("block", []))


def opened(made) -> pd.DataFrame:
    locks = {"one": "2026-01-01T00:00:00Z", "two": "2026-01-02T00:00:00Z"}
    return seal.unseal(made, made.parent / "sealed", reading_studies.STUDY, locks)


def test_a_set_without_pairs_keeps_the_fingerprint_that_it_was_sealed_with(study_folders):
    made = reading_studies.make(study_folders, read=3)
    then = seal.fingerprint(made)
    text = (made / "reading_set.csv").read_text().splitlines()
    assert text[0].endswith(",pair")
    (made / "reading_set.csv").write_text("\n".join(row.rpartition(",")[0] for row in text) + "\n")
    assert seal.fingerprint(made) == then, "as a set from before there were pairs"


def test_a_damaged_table_of_pairs_is_named_in_a_sentence(study_folders):
    made = reading_studies.make(study_folders, 2, blocks=[SINGLE, PAIRS], asked=[LABEL, WHICH])
    table = made / "reading_set.csv"
    table.write_text(table.read_text().replace("blind_id", "blind", 1))
    with pytest.raises(setting.SettingError, match="row 1: no valid blind_id"):
        setting.load(reading_studies.STUDY)


def test_the_report_says_what_was_found_of_pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    found = analyse("small")[1]
    key, given, people = choices(np.random.default_rng(1), correct=0.7, left=0.2)
    asked, _ = questions.analyse(DESIGNED, key, given, people)
    found |= asked | {"main_block": "single"}
    said = texts.written(found, CONTEXT)
    share = "picked the generated one in 222 of 320 choices (69 %; 95 % interval"
    assert share.replace(" %", "\u00a0%") in said["blocks"][0].replace(" %", "\u00a0%")
    assert any(
        "readers preferred the left image, whatever it showed" in one for one in said["pairs"]
    )
    assert any(
        "the generated image was the left one in 20 pairs" in one.lower() for one in said["pairs"]
    )
    page = report.render(found, CONTEXT, {}).decode()
    assert (
        '<h2 id="Pairs">' in page and "Choices between two images, “Reading test (pairs)”" in page
    )
    assert "40 pairs scored" in page and "None" not in " ".join(said["pairs"])
