"""The random draw of the images to read: draw.csv, the candidates, training cases, matching, hidden
repeats, and the weaknesses of the design.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import tables
from helpers.assemble_reading_set import framing
from helpers.plurals import counted
from helpers.runner import runs
from helpers.runner.progress import progress
from helpers.statistics import clusters, design
from helpers.statistics.differences import FEW_READERS
from helpers.table_columns import MODALITY_NAMES

ADVISED = 6  # readers; from this number on the report also draws readers in a bootstrap
MATCH = "match"
LINKS = ("made_from", "near", "duplicate_group")  # no set holds two images that these connect
MATCHED = ("none", "view", "finding", "finding and view")  # 2 for the finding, 1 for the view


class BlindingError(ValueError):
    """A draw, a reading set or returned readings are not valid; the message says why and what to
    do.
    """


def read_draw(path: Path) -> pd.DataFrame:
    """Read draw.csv: each row says how many images to draw from which run.

    An empty `generator` means any. `finding` is empty (any), an id, or `match`: the same findings
    and views as the generated images of this modality. Raises TableError or BlindingError naming
    the wrong value.
    """
    wanted = tables.filled_in(path, "draw")
    if ((wanted["finding"] == MATCH).fillna(False) & (wanted["origin"] != "real")).any():
        raise BlindingError(f"{path}: finding 'match' is for real images only.")
    if (wanted["count"] < 0).any():
        raise BlindingError(f"{path}: count must be 0 or more.")
    return wanted.astype({"count": int, "training": bool}).fillna({"group": "main"})


def gather(sources: Iterable[runs.Run]) -> pd.DataFrame:
    """The images.csv of all runs with `run`, `file` (absolute path) and, from stage 01, `masked`
    (share painted over).
    """
    parts = []
    for source in sources:
        rows = source.read("images.csv")
        parts.append(rows.assign(run=source.name, file=f"{source.folder}/" + rows["path"]))
        if (source.folder / "imported.csv").exists():
            masked = source.read("imported.csv").set_index("image_id")["masked"]
            parts[-1]["masked"] = rows["image_id"].map(masked)
    return pd.concat(parts, ignore_index=True)


def drawable(pool: pd.DataFrame, copies: Iterable[str]) -> pd.DataFrame:
    """Real images of the test split, which no generator has seen, and generated images that are not
    among the refused `copies` (image_ids).
    """
    fits = (pool["origin"] == "generated") | (pool["split"] == "test").fillna(False)
    return pool[fits & ~pool["image_id"].isin(list(copies))].reset_index(drop=True)


def candidates(run: runs.Run, audited: runs.Run, wanted: pd.DataFrame) -> pd.DataFrame:
    """The images that may be drawn from the runs in `wanted` (draw.csv), according to the audit of
    05 (`audited`).

    Images below the reading size are left out; `.attrs` holds their numbers by run (`small`) and
    the number `refused` as copies. If 05 found an image of another generator too near to a real
    case, `made_from` names that case.
    """
    nearest = audited.read("nearest.csv")
    pool = gather([run.reads(name) for name in wanted["run"].unique()])
    near = nearest[nearest["near"].fillna(False) & ~nearest["copy"]].set_index("image_id")
    pool["near"] = pool["image_id"].map(near["nearest_image_id"]).astype("string")
    pool["made_from"] = pool["made_from"].fillna(pool["near"])
    copies = nearest.loc[~nearest["release"], "image_id"]
    allowed = drawable(pool, copies)
    settings = {**audited.parameters, "framing": run.parameters.framing}
    rows = progress(list(allowed.itertuples()), "measuring")
    large = [framing.side(row, settings) >= settings["reading_size"] for row in rows]
    small = allowed.loc[~np.array(large, bool), "run"].value_counts().to_dict()
    allowed = allowed[large].reset_index(drop=True)
    allowed.attrs = {"refused": int(pool["image_id"].isin(copies).sum()), "small": small}
    run.say(
        f"{len(allowed)} images may be drawn; {allowed.attrs['refused']} were refused as copies of"
        f" training cases, {sum(small.values())} left out because they are smaller than the reading"
        f" size of {settings['reading_size']} px"
        + "".join(f"; {count} of {name}" for name, count in small.items())
        + "."
    )
    return allowed


def draw(pool: pd.DataFrame, wanted: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """A seeded random draw: rows of `pool` plus `training`, `repeat` and `part`, one row per
    presentation.

    Training cases are drawn first and share no patient, prompt, duplicate group or image with the
    read; no two of the images read are near-duplicates. `settings` has repeats (the share of the
    images read that are shown twice), min_distance (how many others come between) and seed. Raises
    BlindingError naming the rows of the draw that cannot be fulfilled.
    """
    repeats = settings["repeats"]
    if not 0 <= repeats <= 1:
        raise BlindingError(
            f"repeats is {repeats:g}: it must be a share of the images read, from 0 to 1 (0.15 is"
            " usual)."
        )
    random = np.random.default_rng(settings["seed"])
    wanted = wanted.assign(group=wanted.get("group", "main"))
    shuffled = _with_originals(pool.sort_values("image_id")).iloc[random.permutation(len(pool))]
    shuffled = shuffled.reset_index(drop=True)
    training = _draw_rows(shuffled, wanted[wanted["training"]], spare_prompts=True)
    apart = _related(shuffled, training, ("original", "patient", "prompt_id"))
    read = _draw_rows(shuffled[~apart].reset_index(drop=True), wanted[~wanted["training"]])
    again = [
        image
        for _, group in read.groupby("group", sort=True)
        for image in _choose_repeats(group, repeats, random)
    ]
    read["repeat"] = read["image_id"].isin(again)
    drawn = [training.assign(training=True, repeat=False), read.assign(training=False)]
    return order_parts(pd.concat(drawn, ignore_index=True), settings["min_distance"], random)


def _with_originals(pool: pd.DataFrame) -> pd.DataFrame:
    """Adds `original`, one number for all images that LINKS connect, over several steps too: an
    image, what it was made from, the case that 05 found it too near to, and their near-duplicates.
    """
    ids = pool["image_id"].astype("string")
    ends = [pool[name].astype("string") for name in LINKS if name in pool]
    links = pd.concat([pd.DataFrame({"one": ids, "other": end}) for end in ends]).dropna()
    codes, names = pd.factorize(pd.concat([ids, links["one"], links["other"]]))
    _, one, other = np.split(codes, [len(ids), len(ids) + len(links)])
    families = clusters.linked(np.column_stack([one, other]), len(names))
    return pool.assign(original=families[codes[: len(ids)]])


def _draw_rows(
    shuffled: pd.DataFrame, wanted: pd.DataFrame, spare_prompts: bool = False
) -> pd.DataFrame:
    taken = shuffled.iloc[:0].assign(
        match=pd.Series(dtype="string"), group=pd.Series(dtype="string")
    )
    # Matched images come last, and what a row names comes before any, which would take it away.
    matched_last = sorted(
        wanted.to_dict("records"),
        key=lambda row: (
            *(row["origin"] == "real", row["finding"] == MATCH),
            *(pd.isna(row["finding"]), pd.isna(row["generator"])),
        ),
    )
    short = []
    for row in matched_last:
        fits = ~_related(shuffled, taken, ("original",))
        for name in ("run", "origin", "modality", "generator"):
            if pd.notna(row[name]):
                fits &= (shuffled[name] == row[name]).fillna(False)
        if pd.notna(row["finding"]) and row["finding"] != MATCH:
            found = shuffled["finding"].fillna("").str.split("|")
            fits &= found.map(lambda ids, wanted=row["finding"]: wanted in ids)
        free = _one_each(shuffled[fits.to_numpy(dtype=bool)], taken, few=spare_prompts)
        if len(free) < row["count"]:
            named = [row[name] for name in ("origin", "modality", "generator", "finding")]
            kind = "training cases" if row["training"] else "images"
            short.append(
                f"The draw asks for {row['count']} {kind} ({' '.join(filter(pd.notna, named))}) of"
                f" {row['run']}, but only {len(free)} are left: ask for fewer or make more."
            )
            continue
        chosen = free.head(row["count"])
        if row["finding"] == MATCH:
            alike = (taken["modality"] == row["modality"]) & (taken["group"] == row["group"])
            like = taken[alike & (taken["origin"] == "generated")]
            chosen = _matched(free, like, row["count"])
        taken = pd.concat([taken, chosen.assign(group=row["group"])], ignore_index=True)
    if short:
        raise BlindingError("\n".join(short))
    return taken


def _one_each(free: pd.DataFrame, taken: pd.DataFrame, few: bool) -> pd.DataFrame:
    """Without near-duplicates. New patients come before patients already drawn; training cases come
    from as few prompts as possible.
    """
    free = free[~free["original"].duplicated()]
    seen = free["patient"].notna() & (
        free["patient"].duplicated() | free["patient"].isin(taken["patient"])
    )
    order = seen.to_numpy(dtype=int)
    if few and free["prompt_id"].notna().any():
        order = order + pd.factorize(free["prompt_id"])[0]
    return free.iloc[np.argsort(order, kind="stable")]


def _matched(free: pd.DataFrame, like: pd.DataFrame, count: int) -> pd.DataFrame:
    """Real images with the finding and view of the generated ones, one for each. The column `match`
    says what still matches.
    """
    if like.empty:
        raise BlindingError(
            "The draw asks for matched real images, but draws no generated ones of that modality to"
            " match."
        )
    chosen, kept = [], []
    for number in range(count):
        target = like.iloc[number % len(like)]
        rest = free.drop(index=chosen)
        finding, view = (
            rest[name].fillna("") == (target[name] if pd.notna(target[name]) else "")
            for name in ("finding", "view")
        )
        agreement = (2 * finding.astype(int) + view.astype(int)).to_numpy(dtype=int)
        chosen.append(rest.index[agreement.argmax()])
        kept.append(MATCHED[agreement.max()])
    return free.loc[chosen].assign(match=kept)


def _related(rows: pd.DataFrame, others: pd.DataFrame, by: Iterable[str]) -> pd.Series:
    related = pd.Series(False, index=rows.index)
    for name in by:
        related |= rows[name].notna() & rows[name].isin(others[name].dropna())
    return related


def _choose_repeats(read: pd.DataFrame, share: float, random: np.random.Generator) -> list[str]:
    """image_ids to show twice, spread over source and modality in proportion (largest
    remainders).
    """
    total = round(share * len(read))
    groups = [group for _, group in read.groupby(["run", "origin", "modality"], sort=True)]
    quota = np.array([len(group) * total / max(len(read), 1) for group in groups])
    counts = np.floor(quota).astype(int)
    for index in np.argsort(counts - quota, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return [
        image
        for group, count in zip(groups, counts)
        for image in random.choice(group["image_id"].to_numpy(dtype=object), count, replace=False)
    ]


def order_parts(
    drawn: pd.DataFrame, min_distance: int, random: np.random.Generator
) -> pd.DataFrame:
    """One row per presentation, with its part of the read (0 training, then 1, 2, 3).

    A reader's own order shuffles only within the parts. First presentations are in part 1, their
    repeats in part 3, and part 2 holds at least `min_distance` images of the same modality. So
    repeats keep their distance in every reader's order, mixed or modality by modality, and the
    reading host does not need to know which images are repeats.
    """
    rows = [drawn[drawn["training"]].assign(part=0, repeat=False)]
    for (_, modality), group in drawn[~drawn["training"]].groupby(["group", "modality"], sort=True):
        once, twice = group[~group["repeat"]], group[group["repeat"]]
        middle = max(min_distance, len(group) // 3) if len(twice) else len(group) // 3
        if len(twice) and len(once) < min_distance:
            raise BlindingError(
                f"No room for {counted(len(twice), 'repeat')} at a distance of {min_distance}:"
                f" that needs {min_distance} {modality} images that are not repeated, and there are"
                f" {len(once)}. Use fewer repeats, a smaller distance or more images."
            )
        middle = min(middle, len(once))
        parts = np.concatenate([np.full(middle, 2), random.choice([1, 3], len(once) - middle)])
        rows += [
            once.assign(part=random.permutation(parts)),
            twice.assign(part=1, repeat=False),
            twice.assign(part=3, repeat=True),
        ]
    return pd.concat(rows, ignore_index=True).assign(part=lambda frame: frame["part"].astype(int))


def weak_points(drawn: pd.DataFrame, settings: dict, audited: dict, needed: int) -> list[str]:
    """The weaknesses of this design: what it cannot show, or shows only weakly. One sentence each.

    `settings` has readers and framing, `audited` the parameters of 05; `needed` is the sample size
    for kappa (design.sample_size).
    """
    readers = settings["readers"]
    read = drawn[~drawn["training"] & ~drawn["repeat"]]
    count, real = len(read), int((read["origin"] == "real").sum())
    mixed = 0 < real < count
    painted = int((read["masked"] > 0).sum()) if "masked" in read else 0
    matched = read["match"].dropna()
    loose = int((matched != MATCHED[-1]).sum())
    generated = read["origin"] == "generated"
    together = {
        by: design.imbalance(generated, read[by])["v"]
        for by in ("modality", "finding", "view")
        if by in read
    }
    one_sided = {
        modality: group["origin"].iloc[0]
        for modality, group in read.groupby("modality")
        if mixed and group["origin"].nunique() == 1
    }
    weak = {
        "Only generated images are read: the false-positive rate, d′ and the ROC curve are"
        " undefined, and calling everything fake would look perfect.": real == 0,
        "Only real images are read: sensitivity, d′ and the ROC curve are undefined.": real
        == count,
        f"{real} of {count} images {'is' if real == 1 else 'are'} real. An equal split is the"
        " strongest design, because readers adapt to unequal numbers.": mixed
        and not count / 3 <= real <= count * 2 / 3,
        **{
            f"Every {MODALITY_NAMES[modality]} image is {origin}: the modality alone gives it"
            " away.": True
            for modality, origin in one_sided.items()
        },
        **{
            f"Truth and {by} are associated (Cramér's V {v:.2f}): a reader who judges by the {by}"
            f" alone would look accurate. Draw as many real as generated images of each {by}.": v
            > design.STRONG
            for by, v in together.items()
        },
        f"{count} images are read, but the planned test of kappa needs {needed}.": count < needed,
        f"Readers planned: {readers}. Conclusions about readers in general need at least"
        f" {FEW_READERS}; {ADVISED} or more, with different levels of experience, are advised.": (
            readers < ADVISED
        ),
        "No image is repeated, so intra-reader agreement stays unknown (10 to 20 % repeats are"
        " usual).": (not drawn["repeat"].any()),
        "No training cases: in the first answers, readers are still getting used to the page.": (
            not drawn["training"].any()
        ),
        f"In {painted} of {count} images stage 01 painted over text: if few other images have such"
        " patches, the patches give the truth away (`burned_in_text: reject` in 01 leaves such"
        " images out).": bool(painted) and real < count,
        f"{loose} of {len(matched)} real images could not be matched by finding and view.": loose,
        f"05 measured what gives a source away with framing {audited['framing']}; these images are"
        f" framed {settings['framing']}: redo 05 with that framing.": (
            audited["framing"] != settings["framing"]
        ),
    }
    return [sentence for sentence, holds in weak.items() if holds]
