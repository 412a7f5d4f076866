"""Sentences with numbers, written from results.json's dictionary and from nothing else."""

from helpers.figures import COEFFICIENTS, NAMES
from helpers.statistics.accuracy import wilson

KINDS = {"xray": "X-rays", "ct": "CT images"}
FEW_PIXELS = 256  # a side; radiologists read X-rays at ten times as many
NO_WIDTH = (
    "the images do not differ in it, so its interval has no width and says nothing about other"
    " images"
)
BANDS = (
    (0.0, "poor"),
    (0.2, "slight"),
    (0.4, "fair"),
    (0.6, "moderate"),
    (0.8, "substantial"),
    (1.01, "almost perfect"),
)


def percent(share: float | None) -> str:
    """62 %."""
    return "–" if share is None else f"{100 * share:.0f}\u00a0%"


def interval(low: float | None, high: float | None, digits: int = 0) -> str:
    """5 to 36 % for shares (digits 0), .12 to .44 for coefficients (digits 2); empty when there is
    none.
    """
    if low is None or high is None:
        return ""
    return (
        f"{100 * low:.0f} to {100 * high:.0f}\u00a0%"
        if digits == 0
        else f"{value(low, digits)} to {value(high, digits)}"
    )


def value(number: float | str | None, digits: int = 2) -> str:
    """A number for people; ∞ and – for what is not finite."""
    return (
        "–"
        if number is None
        else (
            "∞"
            if number == "inf"
            else (
                f"{number + 0.0:.{digits}f}".replace("-", "−")
                if round(number, digits)
                else f"{0:.{digits}f}"
            )
        )
    )


def p_value(p: float | None) -> str:
    """p = .031, p < .001."""
    return (
        "p not defined"
        if p is None
        else "p < .001"
        if p < 0.001
        else f"p = {p:.3f}".replace("0.", ".")
    )


def count(part: dict) -> str:
    """3 of 20 (15 %, 95 % interval 5 to 36 %)."""
    if not part["total"]:
        return "none (no image was labelled by all of them)"
    return (
        f"{part['count']} of {part['total']} ({percent(part['count'] / part['total'])}; 95 %"
        f" interval {interval(part['low'], part['high'])})"
    )


def were(number: int) -> str:
    """was for one, were for none and for several."""
    return "was" if number == 1 else "were"


def everyone(readers: int) -> str:
    """both readers, all 5 readers, the only reader."""
    return {1: "the only reader", 2: "both readers"}.get(readers, f"all {readers} readers")


def knew(design: dict) -> str:
    """How many readers stated prior knowledge of AI."""
    if design["readers"] == 1:
        return f"this reader stated {'' if design['prior_ai'] else 'no '}prior knowledge of AI"
    return f"{design['prior_ai'] or 'none'} of them stated prior knowledge of AI"


def answer(results: dict) -> str:
    """What the title asks, first of all: how often each reader called which kind fake, and the mean
    area; "" when nothing tells.
    """
    said, shares = [], {"generated": [], "real": []}
    for reader in [row["reader"] for row in results["readers"]]:
        rows = {
            row["measure"]: row
            for row in results["accuracy"]
            if row["reader"] == reader and row["policy"] == "own"
        }
        called = {
            kind: row for kind in shares if (row := rows.get(f"fake of {kind}")) and row["total"]
        }
        for kind, row in called.items():
            shares[kind].append(row["estimate"])
        if called:
            said.append(
                f"{reader} called"
                f" {' and '.join(f'{count(row)} {kind} images' for kind, row in called.items())}"
                " fake."
            )
    if len(said) > 3:
        ranges = [
            f"{percent(min(some))} to {percent(max(some))} of the {kind} images"
            for kind, some in shares.items()
            if some
        ]
        said = [f"The {len(said)} readers called {' and '.join(ranges)} fake."]
    mean, resampled = (
        results["multireader"][results["settings"]["covariance"]],
        results["multireader"]["bootstrap"],
    )
    if mean["estimate"] is not None:
        held = (
            f", 95 % interval by resampling {interval(resampled['low'], resampled['high'], 2)}"
            if resampled["low"] is not None
            else ""
        )
        few = (
            f"; {mean['readers']} readers tell little about readers in general"
            if mean["readers"] < 6
            else ""
        )
        said.append(
            f"The mean area under the ROC curve is {value(mean['estimate'])} (0.5 is guessing, 1 is"
            f" never wrong{held}{few})."
        )
    return " ".join(said)


def headline(row: dict) -> list[str]:
    """What the poster tells, for one kind of image: labelled real, left uncertain, seen through,
    conditions.
    """
    people, kind = everyone(row["readers"]), f"{row['origin']} {KINDS[row['modality']]}"
    called = row["all_real"]
    said = [
        f"Of {row['images']} {kind}, {people} called {count(called)} real and left"
        f" {count(row['all_uncertain'])} uncertain."
    ]
    if not called["total"]:
        said = [
            f"Of {row['images']} {kind} none was labelled by {people}, so none can be counted as"
            f" called real, or left uncertain, by {people}."
        ]
    elif called["total"] < row["images"]:
        said[0] = said[0].replace(
            "Of ",
            f"Of {row['images']} {kind}, {called['total']} {were(called['total'])} labelled by"
            f" {people}. Of these, ",
            1,
        )
        said[0] = said[0].replace(f"{row['images']} {kind}, {people} called", f"{people} called", 1)
    if row["readers"] >= 2:
        about = "identified as fake" if row["origin"] == "generated" else "wrongly called fake"
        said.append(
            f"{count(row['two_fake'])} {were(row['two_fake']['count'])} {about} by at least two"
            " readers."
        )
    conditions = [
        f"{item['name'].lower()} ({item['answers']} of {item['of_answers']} answers)"
        for item in row["conditions"][:4]
    ]
    said.append(
        f"Described: {', '.join(conditions)}." if conditions else "No condition was described."
    )
    return said


def agreement(results: dict) -> list[str]:
    """How far readers agree, and what the intervals are worth at this size."""
    rows = {row["coefficient"]: row for row in results["agreement"] if row["group"] == "all"}
    said = []
    if results["design"]["readers"] < 2:
        return ["One reader: agreement between readers does not exist."]
    main = rows["cohen"] if results["design"]["readers"] == 2 else rows["fleiss"]
    for row in (main, rows["gwet"], rows["krippendorff"]):
        name = COEFFICIENTS[row["coefficient"]]
        if row["estimate"] is None:
            said.append(f"{name} has no value: {row['reason']}.")
        elif row["low"] is None:
            said.append(f"{name} is {value(row['estimate'])}; it has no interval: {row['reason']}.")
        elif row["se"] == 0:
            said.append(f"{name} is {value(row['estimate'])} over {_rated(row, rows)}; {NO_WIDTH}.")
        else:
            said.append(
                f"{name} is {value(row['estimate'])} (95 % interval"
                f" {interval(row['low'], row['high'], 2)}; {_rated(row, rows)})."
            )
    if main["estimate"] is not None:
        band = next(name for edge, name in BANDS if main["estimate"] < edge)
        said.append(
            f"By the usual words (Landis and Koch) this {COEFFICIENTS[main['coefficient']]} is"
            f" {band}; agreement is not accuracy."
        )
    covered = {row["coefficient"]: row for row in results["coverage"]}
    known = covered.get(main["coefficient"], {})
    if main["low"] is not None and main["se"] > 0 and known.get("coverage") is not None:
        said.append(
            f"Measured by simulation at {known['images']} images and two readers, with the labels"
            " of the first two readers taken as the truth (half an image added to every cell),"
            f" such a 95 % interval of {COEFFICIENTS[main['coefficient']]} holds the true value in"
            f" {percent(known['coverage'])} of {known['studies']} studies."
        )
    return said


def _rated(row: dict, rows: dict) -> str:
    """40 images, 20 of them with one answer only: those count for chance alone."""
    once = row["images"] - rows["krippendorff"]["images"]
    return f"{row['images']} images" + (
        f", {once} of them with one answer only" if once > 0 else ""
    )


def intra(results: dict) -> list[str]:
    """Agreement of readers with themselves."""
    rows = [
        row for row in results["intra_reader"] if row["coefficient"] == "percent" and row["images"]
    ]
    if not rows:
        return [
            "No image was read twice: agreement of a reader with himself or herself is unknown."
        ]
    gwet = {row["reader"]: row for row in results["intra_reader"] if row["coefficient"] == "gwet"}
    said = []
    for row in rows:
        same = round(row["estimate"] * row["images"])
        low, high = wilson(same, row["images"])
        alike = (
            f"{row['reader']} gave the same label twice to {same} of {row['images']} repeated"
            f" images ({percent(row['estimate'])}; 95 % interval {interval(low, high)})"
        )
        ac1 = gwet[row["reader"]]
        if ac1["low"] is None or ac1["se"] == 0:
            said.append(f"{alike}; AC1 {value(ac1['estimate'])}, without a usable interval.")
        else:
            said.append(
                f"{alike}; AC1 {value(ac1['estimate'])} ({interval(ac1['low'], ac1['high'], 2)})."
            )
    silent = [
        row["reader"]
        for row in results["readers"]
        if row["reader"] not in [twice["reader"] for twice in rows]
    ]
    return said + [
        f"{reader} labelled no image twice: agreement with himself or herself is unknown."
        for reader in silent
    ]


def accuracy(results: dict) -> list[str]:
    """Sensitivity, specificity and d' of every reader under the policy of the settings."""
    policy, design = results["settings"]["policy"], results["design"]
    meaning = {
        "wrong": "counted as an error",
        "dropped": "left out",
        "own": "kept as a category of its own",
    }[policy]
    said = [
        f'In these sentences "uncertain" is {meaning}; the table has all three policies side by'
        " side."
    ]
    for kind, missing in (
        (
            "real",
            (
                "false alarms, specificity, d′ and ROC curves cannot exist: calling everything fake"
                " would look perfect"
            ),
        ),
        ("generated", "sensitivity, d′ and ROC curves cannot exist"),
    ):
        if not design[kind]:
            said.append(f"No {kind} image was read, so {missing}.")
    for reader in [row["reader"] for row in results["readers"]]:
        rows = {
            r["measure"]: r
            for r in results["accuracy"]
            if r["reader"] == reader and r["policy"] == policy
        }
        if policy == "own":
            parts = [
                f"called {percent(r['estimate'])} of {r['total']} {kind} images fake"
                for kind in ("generated", "real")
                if (r := rows.get(f"fake of {kind}")) and r["total"]
            ]
        else:
            found, kept, d = rows["sensitivity"], rows["specificity"], rows["dprime"]
            parts = [f"called {count(found)} generated images fake"] if found["total"] else []
            parts += [f"called {count(kept)} real ones real"] if kept["total"] else []
            parts += (
                [f"d′ {value(d['estimate'])} ({interval(d['low'], d['high'], 2)})"]
                if d["estimate"] is not None
                else []
            )
        said.append(
            f"{reader} {'; '.join(parts)}."
            if parts
            else f"{reader} answered nothing that counts here."
        )
    return said


def readers_in_general(results: dict) -> list[str]:
    """The multi-reader analysis, equivalence to chance, bootstrap."""
    chosen = results["settings"]["covariance"]
    found, same, boot = (
        results["multireader"][chosen],
        results["multireader"]["equivalence"],
        results["multireader"]["bootstrap"],
    )
    if found["estimate"] is None or found["se"] is None:
        return [f"No analysis over random readers and images: {found['reason']}."]
    if found["low"] is None:
        return [
            f"The mean area is {value(found['estimate'])}, without an interval: {found['reason']}."
        ]
    said = [
        "Over random readers and random images the mean area under the ROC curve is"
        f" {value(found['estimate'])} (95 % interval {interval(found['low'], found['high'], 2)};"
        f" against 0.5: t = {value(found['statistic'])}, {value(found['df'], 1)} degrees of"
        f" freedom, two-sided {p_value(found['p'])}; {found['readers']} readers, {found['images']}"
        " images"
        + (
            f", {found['dropped']} left out because a reader had not answered)."
            if found["dropped"]
            else ")."
        )
    ]
    if found["low"] < 0 or found["high"] > 1:
        said.append(
            f"The interval leaves the possible range from 0 to 1: {found['readers']} readers tell"
            " next to nothing about readers in general."
        )
    margin = results["settings"]["margin"]
    if same["p"] is None:
        said.append(f"Equivalence to chance was not tested: {same['reason']}.")
    else:
        verdict = "is shown" if same["equivalent"] else "is not shown"
        said.append(
            f"Equivalence to chance within 0.5 ± {margin:g} {verdict} (two one-sided tests,"
            f" {p_value(same['p'])})."
        )
    if boot["low"] is not None:
        said.append(
            f"Resampling readers and images {boot['replicates']} times gives the 95 % interval"
            f" {interval(boot['low'], boot['high'], 2)}."
        )
        if same["equivalent"] and not 0.5 - margin <= boot["low"] <= boot["high"] <= 0.5 + margin:
            said.append(
                f"That reaches beyond 0.5 ± {margin:g}: resampling does not bear the equivalence"
                " out, and with so few readers the wider of two intervals is the one to trust."
            )
    return said


def planning(results: dict) -> list[str]:
    """What a study of this size could have found."""
    rows = results["power"]
    if not rows:
        return [
            "No power was computed: the multi-reader analysis needs two readers, and two real and"
            " two generated images that every reader answered."
        ]
    parts = [f"{percent(row['power'])} for a true area of {row['auc']:g}" for row in rows]
    first = rows[0]
    return [
        f"By simulation, a study with {first['readers']} readers, {first['real']} real and"
        f" {first['generated']} generated images finds a difference from chance with a probability"
        f" of {', '.join(parts)} (areas of readers scattered with a standard deviation of 0.05;"
        f" {int(first['studies'])} simulated studies)."
    ]


def fooled(results: dict) -> list[str]:
    """Which images fool readers, and whether those are near copies."""
    found = results["fooled"]
    if not found["generated"]:
        return ["No generated image was read."]
    more = (
        "the only reader"
        if results["design"]["readers"] == 1
        else "more readers than called them fake"
    )
    said = [
        f"{found['fooled']} of {found['generated']} generated images {were(found['fooled'])} called"
        f" real by {more}."
    ]
    if not found["fooled"]:
        return said
    if not found["distance_known"]:
        return [*said, "The distance to the nearest training case is not known for any of them."]
    if not found["fooled_measured"]:
        return [
            *said,
            (
                f"The distance to the nearest training case is known for {found['measured']}"
                " images, none of them among these."
            ),
        ]
    other = (
        f", {value(found['median_distance_other'], 3)} for the others"
        if found["median_distance_other"] is not None
        else ""
    )
    return [
        *said,
        (
            f"Of these, {found['fooled_measured']}"
            f" {'is' if found['fooled_measured'] == 1 else 'are'} from a generator trained here,"
            f" {found['fooled_copies'] or 'none'} of them a near copy of a training case; the"
            " median distance to the nearest one is"
            f" {value(found['median_distance_fooled'], 3)}{other}."
        ),
    ]


def limits(results: dict, size: int) -> list[str]:
    """Limits that follow from the design and from the `size` in pixels at which images were shown,
    one sentence each.
    """
    design, flow, said = results["design"], results["flow"], []
    if not design["real"]:
        said.append(
            "Only generated images were read: false alarms, specificity, d′ and ROC curves do not"
            " exist; a reader who calls everything fake looks perfect."
        )
    elif not design["generated"]:
        said.append("Only real images were read: sensitivity, d′ and ROC curves do not exist.")
    elif not 1 / 3 <= design["real"] / design["images"] <= 2 / 3:
        said.append(
            f"{design['real']} of {design['images']} images are real: readers adapt to what is"
            " rare; half and half is the strongest design."
        )
    if design["readers"] < 6:
        said.append(
            f"{design['readers']} reader{'s' if design['readers'] != 1 else ''}: what holds for"
            " them need not hold for readers in general; at least 6 over strata of experience"
            " would be needed."
        )
    if design["images"] < 100:
        kappa = (
            ", and below about 200 images those of kappa can hold the true value less often than"
            " they say"
        )
        said.append(
            f"{design['images']} images: intervals are"
            f" wide{kappa if design['readers'] > 1 else ''}."
        )
    if size < FEW_PIXELS:
        said.append(
            f"Images were shown at {size} × {size} pixels: fine detail that might tell real from"
            " generated was not there to be seen."
        )
    if flow["missing_answers"]:
        said.append(
            f"{flow['missing_answers']} of {flow['expected_answers']} answers are missing;"
            f" {design['images'] - design['complete_images']} images were not labelled by every"
            " reader and do not enter counts such as “called real by both”."
        )
    if not design["repeats"]:
        said.append("No hidden repeats: how far readers agree with themselves is unknown.")
    if not design["confidence_asked"] and design["real"] and design["generated"]:
        said.append(
            "No confidence was asked: ROC curves rest on three steps only (real, uncertain, fake)."
        )
    if 0 < design["prior_ai"] < design["readers"] and design["readers"] < 6:
        said.append(
            "Prior knowledge of AI cannot be told apart from the person who has it: with so few"
            " readers a difference may be one of persons."
        )
    said.append(
        "The page told readers that images may be generated; in daily work nobody warns them."
    )
    said.append(
        "Conditions in free text were found by rules that respect negation, not by a person."
    )
    return said


def source(row: dict) -> str:
    """X-ray, generated by tiny-sd: 20 images."""
    by = f" by {row['generator']}" if row["generator"] else ""
    return f"{NAMES[row['modality']]}, {row['origin']}{by}: {row['images']} images"
