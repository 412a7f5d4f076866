"""The only list of the columns of every table on disk: their names, meanings and choices."""

from dataclasses import dataclass
from functools import partial

from helpers.findings import FINDINGS, SIDES, WORDINGS

DTYPES = {
    "text": "string",
    "ids": "string",
    "integer": "Int64",
    "number": "Float64",
    "yes/no": "boolean",
}


@dataclass(frozen=True)
class Column:
    """One column: its kind (text, ids joined by |, integer, number, yes/no), meaning with unit,
    choices, whether empty is an error.
    """

    kind: str
    name: str
    meaning: str
    choices: tuple[str, ...] = ()
    required: bool = False


text, ids = partial(Column, "text"), partial(Column, "ids")
integer, number = partial(Column, "integer"), partial(Column, "number")
yes_no = partial(Column, "yes/no")

ESTIMATE_COLUMNS = (
    number("estimate", "value"),
    number("low", "lower end of the 95 % interval"),
    number("high", "upper end of the 95 % interval"),
)


def _coefficient(names="", images="number of images used", readers="number of readers used"):
    return (
        text("coefficient", names or COEFFICIENT, required=True),
        *ESTIMATE_COLUMNS,
        number("se", "standard error"),
        integer("images", images),
        *([integer("readers", readers)] if readers else []),
        text("reason", "why a number is missing"),
    )


MODEL_COLUMNS = (
    text("reader_id", "opaque id", required=True),
    text("kind", "who answered", choices=("model",), required=True),
    text("label", "name of the model in the report", required=True),
    text("model", "name of the model as requested", required=True),
    text("answered_by", "as the service names it, several joined by |"),
    text("provider", "openai, azure, local or rehearsal", required=True),
    text("first_utc", "ISO 8601, time of the first answer"),
    text("last_utc", "ISO 8601, time of the last answer"),
    text("instructions_sha256", "SHA-256 of the file of instructions", required=True),
    text("settings", "JSON: the settings of the requests", required=True),
    integer("answered", "number of images answered", required=True),
    integer("missing", "number of images without an answer", required=True),
    number("cost_usd", "cost of all requests of this reading, USD"),
    yes_no("simulated", "answered by the rehearsal's stand-in", required=True),
)

QUESTION_COLUMNS = (
    text("block", "id of the block", required=True),
    text("question", "id in questions.csv", required=True),
)

DIFFERENCE_COLUMNS = (
    *ESTIMATE_COLUMNS,
    number("before", "mean of the real images, or of the earlier block"),
    number("after", "mean of the generated images, or of the later block"),
    integer("answers", "number of answers used"),
    integer("images", "number of images used"),
    integer("readers", "number of readers used"),
    text("reason", "why an interval is missing"),
)

MODALITIES = ("xray", "ct")
MODALITY_NAMES = {"xray": "X-ray", "ct": "CT"}
ORIGINS = ("real", "generated")
TRUTHS = (*ORIGINS, "pair")  # of what was answered; a pair is one of each
LABELS = ("real", "fake", "uncertain")
SPLITS = ("train", "validation", "test")
VIEWS = ("PA", "AP", "LL", "axial")
QUESTION_KINDS = (
    *("choice", "choices", "scale", "text", "number", "yes/no", "findings", "side"),
    "marks",
)
COEFFICIENT = "percent, cohen, scott, conger, fleiss, gwet (AC1), brennan_prediger, krippendorff"
STRATUM = "all images, those of one modality, or stratified over modality"

TABLES = {
    "images": (
        "One row per image; the same columns for every source (01, 02, 04).",
        [
            text("image_id", "opaque id, unique in the study", required=True),
            text(
                "path",
                "PNG file, relative to the run folder: one channel, 8 or 16 bit",
                required=True,
            ),
            text("sha256", "SHA-256 of the PNG file", required=True),
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            text("view", "PA, AP, LL (lateral) or axial"),
            text("finding", "ids from helpers/findings.py, several joined by |"),
            text("side", "the patient's side of the finding", choices=SIDES),
            text(
                "caption",
                "text written from modality, view, finding and side, or the report"
                " (captions_from_reports of 01)",
            ),
            text("origin", "real or generated", choices=ORIGINS, required=True),
            text(
                "generator",
                "maker of a generated image: data set (01), model (02), label or run (04)",
            ),
            yes_no("simulated", "made by the rehearsal", required=True),
            text(
                "split", "patient-level split of the cases; missing for generated", choices=SPLITS
            ),
            text("patient", "keyed hash of the patient id; missing for generated"),
            text("duplicate_group", "shared by images that are duplicates of each other"),
            text("sex", "F or M", choices=("F", "M")),
            text("age_band", "decade, e.g. 50-59; 90+ is one band; an open band such as 50+ stays"),
            integer("width", "pixels of the image in its own shape, without bars", required=True),
            integer("height", "pixels", required=True),
            integer("bits", "bit depth of the stored pixels (1 to 16)", required=True),
            text("licence", "licence of the image"),
            text("credit", "people or institutions to credit"),
            text("prompt_id", "stable id of the prompt; generated only"),
            text("made_from", "image_id of the real image that a generated one was made from"),
        ],
    ),
    "rejected": (
        "One row per file of which 01 kept no image.",
        [
            text(
                "file_hash",
                "keyed hash of the file's relative path; the names are in .keys/<study>/",
                required=True,
            ),
            text("kind", "file type as found"),
            text("reason", "why it was rejected", required=True),
        ],
    ),
    "imported": (
        "One row per image of 01: what the import did to it.",
        [
            text("image_id", "as in images.csv", required=True),
            text("file_hash", "keyed hash of the file's relative path", required=True),
            text(
                "layout",
                "the metadata layout that described it, DICOM header, or files alone",
                required=True,
            ),
            text("kind", "file format and compression", required=True),
            integer("original_width", "pixels", required=True),
            integer("original_height", "pixels", required=True),
            integer("original_bits", "stored bit depth"),
            text(
                "window", "centre/width (CT in HU), VOI LUT, full range or as stored", required=True
            ),
            number("clipped", "share of the pixels outside the window", required=True),
            number(
                "mean_grey", "mean of the stored pixels, share of the full range", required=True
            ),
            number("masked", "share of the image masked because of burned-in text", required=True),
            yes_no("inverted", "X-ray suspected to be inverted: bones dark, lungs bright"),
            number("lung_share", "CT: share of the body's area that is aerated lung"),
        ],
    ),
    "prompts": (
        "The images that 02 requests from an image API; the file is beside the YAML of 02.",
        [
            text("prompt_id", "stable id; if empty, a hash of the prompt"),
            text("modality", "modality of the requested image", choices=MODALITIES, required=True),
            text("view", "LL is lateral", choices=VIEWS),
            ids(
                "finding",
                "ids from helpers/findings.py, several joined by |",
                choices=tuple(FINDINGS),
            ),
            text("side", "the patient's side of the finding", choices=SIDES),
            text("wording", "wording in helpers/findings.py; empty: caption", choices=WORDINGS),
            text("prompt", "the full prompt; empty: it is written from the earlier columns"),
            integer("count", "number of images requested", required=True),
        ],
    ),
    "ledger": (
        "One row per request to a paid service, written before the request and updated after it"
        " (02, 07).",
        [
            text("request_id", "id of this attempt, assigned by the study", required=True),
            text("image_id", "id of the requested image (02) or answer (07)", required=True),
            text("prompt_id", "stable id of the prompt (02), or block (07)", required=True),
            text("prompt", "as sent (02 only)"),
            text("model", "as requested"),
            text("size", "WIDTHxHEIGHT as sent; missing when none was sent"),
            text("quality", "as sent; missing when none was sent"),
            integer("attempt", "1 for the first attempt at this image or answer"),
            text("requested_utc", "ISO 8601", required=True),
            number("seconds", "from request to answer"),
            integer("input_tokens", "as counted by the service"),
            integer("output_tokens", "as counted by the service"),
            number(
                "cost_usd",
                "USD, from the service's usage and the price table; for status sent or unknown,"
                " the amount reserved",
            ),
            text(
                "status",
                "sent, submitted (in a batch), ok, refused or unusable (never sent again), failed"
                " or unknown (may have been billed)",
                required=True,
            ),
            text("error", "code and message of the service, without keys"),
        ],
    ),
    "training": (
        "One row per logged step of the fine-tuning (03).",
        [
            integer("step", "optimiser steps done", required=True),
            number("epoch", "passes over the training cases"),
            number("loss", "mean squared error of the prediction, averaged since the last row"),
            number(
                "validation_loss",
                "the same on the validation split, with fixed noise and timesteps",
            ),
            number("learning_rate", "at this step"),
            number("images_per_second", "training throughput since the last row"),
        ],
    ),
    "samples": (
        "One row per sampled image: how it was sampled (04).",
        [
            text("image_id", "as in images.csv", required=True),
            text("checkpoint", "run or model that was sampled", required=True),
            text("prompt_id", "stable id of the prompt", required=True),
            integer("replicate", "0, 1, … within the prompt", required=True),
            integer("seed", "seed of this image's own noise", required=True),
            text("scheduler", "sampler"),
            integer("steps", "denoising steps"),
            number("guidance", "classifier-free guidance scale"),
            number("strength", "strength of inpainting into the original case"),
        ],
    ),
    "failures": (
        (
            "Samples that are not usable images: black (from a safety checker), not finite or of"
            " one grey value (04)."
        ),
        [
            text("image_id", "id that the image would have had", required=True),
            text("prompt_id", "stable id of the prompt", required=True),
            integer("replicate", "0, 1, … within the prompt", required=True),
            integer("seed", "seed of this image's own noise", required=True),
            text("reason", "what is wrong with it", required=True),
        ],
    ),
    "quality": (
        "Fidelity and diversity of each generated source (05).",
        [
            text("metric", "name of the measure", required=True),
            text("source", "run and generator", required=True),
            text("modality", "modality of the images", choices=MODALITIES),
            integer(
                "images",
                "images of the source that were compared; for the thresholds and false alarms of"
                " copy_ and near_, the real images that calibrate them",
                required=True,
            ),
            integer("reference_images", "number of real images in the comparison"),
            number("estimate", "value", required=True),
            number("low", "lower end of the 95 % interval"),
            number("high", "upper end of the 95 % interval"),
            number(
                "baseline",
                "the same measure between two halves of the real images (ms_ssim_within: within"
                " one half), with as many images",
            ),
            number("baseline_low", "lower end of the 95 % interval"),
            number("baseline_high", "upper end of the 95 % interval"),
            text("extractor", "feature extractor and resize rule"),
        ],
    ),
    "nearest": (
        (
            "The nearest real case of every generated image (05). For a generator trained here only"
            " training cases are compared, otherwise all real cases."
        ),
        [
            text("image_id", "the generated image", required=True),
            text("nearest_image_id", "the real case"),
            number(
                "distance",
                "1 - correlation of local structure after alignment; smaller is more similar",
            ),
            integer("hash_distance", "differing bits, of 64, to the nearest perceptual hash"),
            number(
                "feature_distance",
                "distance to the nearest of these cases in the extractor's features, each scaled to"
                " its spread",
            ),
            yes_no("trained_here", "the generator was trained in this study"),
            yes_no("near", "nearer than the calibrated threshold"),
            yes_no("copy", "near, and from a generator trained here", required=True),
            yes_no(
                "release",
                "false for copies: 06 does not draw them, and they are not released",
                required=True,
            ),
        ],
    ),
    "leakage": (
        "Signs outside the anatomy that give a source away (05).",
        [
            text("source", "run and generator", required=True),
            text("modality", "modality of the images", choices=MODALITIES),
            text(
                "stage",
                "before or after the standardisation of 06",
                choices=("before", "after"),
                required=True,
            ),
            text("feature", "one sign, or joint: all signs together", required=True),
            number(
                "auc",
                "grouped cross-validated area under the curve, generated against real",
                required=True,
            ),
            number("low", "lower end of the 95 % interval"),
            number("high", "upper end of the 95 % interval"),
            number("p", "two-sided p-value of the permutation test"),
        ],
    ),
    "sampling_prompts": (
        (
            "What 04 samples; the file is beside the YAML of 04. The prompt is written like the"
            " training captions."
        ),
        [
            text("prompt_id", "unique", required=True),
            text("modality", "modality of the images", choices=MODALITIES, required=True),
            text("view", "LL is lateral", choices=VIEWS),
            ids("finding", "ids of the findings, several joined by |", choices=tuple(FINDINGS)),
            text("side", "the patient's side of the finding", choices=SIDES),
            text("wording", "how the prompt is written; empty: like captions", choices=WORDINGS),
            text("prompt", "the full prompt; empty: it is written from the earlier columns"),
            integer("count", "images per guidance scale and number of steps", required=True),
        ],
    ),
    "draw": (
        (
            "The images to read; the file is beside the YAML of 06. Each row says how many images"
            " to draw at random from one source."
        ),
        [
            text("run", "run of 01, 02 or 04", required=True),
            text("origin", "which images of that run", choices=ORIGINS, required=True),
            text("generator", "as in images.csv; empty: any"),
            text("modality", "modality of the images", choices=MODALITIES, required=True),
            text(
                "finding",
                "an id; empty: any; match (real images only): each real image has, if possible, the"
                " finding and view of one generated image",
                choices=("match", *FINDINGS),
            ),
            integer("count", "number of images", required=True),
            yes_no("training", "shown as warm-up or for learning; not scored", required=True),
            text("group", "which blocks of blocks.csv show it; empty: main"),
        ],
    ),
    "questions": (
        (
            "What readers are asked. The file is beside the YAML of 06. One row is one question;"
            " readers see the questions in the order of the rows."
        ),
        [
            text(
                "id",
                "the question's name in all results. Small letters, digits and _. Two rows may have"
                " the same id if they are for different parts. Some ids have an analysis of"
                " their own: label (the published question: real, fake, uncertain), which (of a"
                " pair: left, right), confidence, description, findings, side, cues, poor_quality,"
                " unusual, noticed, years, specialty, prior_ai",
                required=True,
            ),
            text(
                "block",
                "the part that asks: its id in blocks.csv. A part with images asks about every"
                " image, a part without images asks once. Several are joined by |. reader: once,"
                " before the first part. Empty: every part with images",
            ),
            text("text", "the question as readers see it", required=True),
            text(
                "kind",
                "choice: one option. choices: several options. scale: one step. yes/no. number: 0"
                " to 1000. text: words. findings: several of the known findings. side: right, left"
                " or bilateral. marks: points and boxes on the image",
                choices=QUESTION_KINDS,
                required=True,
            ),
            text(
                "options",
                "joined by |. choice, choices: value=text, or the text alone. scale: the steps from"
                " low to high. findings: ids; empty: all. marks: what a mark can be called. The"
                " other kinds have none",
            ),
            yes_no("required", "true: readers cannot go on without an answer"),
            text(
                "shown_when",
                "question=answer, such as unusual=yes: it is asked only after this answer to an"
                " earlier question of the same part. Empty: always",
            ),
        ],
    ),
    "blocks": (
        (
            "The parts of the read. The file is beside the YAML of 06. One row is one part. A part"
            " with images shows them one after another; a part without images is one page."
        ),
        [
            text(
                "block",
                "the part's id. Small letters, digits and _; not reader. Readers never see it",
                required=True,
            ),
            integer("order", "1 for the first part, 2 for the second, …", required=True),
            text("title", "the part's name on the page and in the report", required=True),
            text("instructions", "shown before the part. An empty line begins a paragraph"),
            text(
                "images",
                "groups of draw.csv, joined by |. Rows of draw.csv without a group are in main."
                " Empty: no images",
            ),
            yes_no(
                "unaware",
                "true: readers do not know of generated images yet. No text up to the end of this"
                " part may mention them",
            ),
            yes_no("tell_truth", "true: the truth is shown after each answer. Never scored"),
            yes_no("lock", "true: answers cannot be changed once the reader goes on"),
            number("after_days", "days that must pass after the previous part"),
            yes_no(
                "pairs",
                "true: one real and one generated image side by side, of one modality and as alike"
                " as possible in finding and view. The part asks which is generated",
            ),
            yes_no("linked", "true: window and zoom of a pair move together at first"),
        ],
    ),
    "review": (
        "Images with text in their pixels that a person has to decide on (01): list.csv in"
        " .keys/<study>/<run>.review/.",
        [
            text("image_id", "as in images.csv", required=True),
            text("file", "relative to the folder of images"),
            integer("crops", "number of crops beside the list that show it, <image_id>_<n>.png"),
            text(
                "decision", "what to do; empty: not decided yet", choices=("mask", "reject", "keep")
            ),
        ],
    ),
    "reading_set": (
        "The presentations of the reading set, without the truth (06).",
        [
            text("blind_id", "opaque id of a presentation", required=True),
            text("path", "PNG file, relative to reading_set/", required=True),
            text(
                "checksum",
                "keyed hash of the file (HMAC-SHA256), which does not reveal repeats",
                required=True,
            ),
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            yes_no("training", "shown as warm-up or for learning; not scored", required=True),
            integer(
                "part",
                "0 training, then 1, 2, 3: a reader's images are shuffled within parts only, so"
                " that repeats keep their distance",
            ),
            text("block", "id of the block that shows it", required=True),
            text(
                "pair",
                "blind_id of the left image, in both rows of a pair; missing if shown alone",
            ),
        ],
    ),
    "to_tell": (
        "The truth of images in blocks that tell it (06): in reading_set/, only if there are such"
        " blocks.",
        [
            text("blind_id", "as in reading_set.csv; for a pair its left image", required=True),
            text(
                "truth",
                "of an image real or fake, of a pair the side of the generated one",
                choices=("real", "fake", "left", "right"),
                required=True,
            ),
        ],
    ),
    "key": (
        "The sealed truth (06); readable only after 08 has opened it.",
        [
            text("blind_id", "as in reading_set.csv", required=True),
            text("image_id", "as in images.csv of its source", required=True),
            text("run", "the source run"),
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            text("origin", "the truth", choices=ORIGINS, required=True),
            text("generator", "generator of the image; missing for real images"),
            text("finding", "ids joined by |"),
            text("view", "PA, AP, LL (lateral) or axial"),
            text("prompt_id", "stable id of the prompt; generated only"),
            text("patient", "keyed hash of the patient id; real only"),
            text("repeat_of", "blind_id of the image's first presentation in the same block"),
            text("block", "id of the block that shows it"),
            text("pair", "blind_id of the left image of its pair; missing if shown alone"),
            yes_no("training", "not scored"),
            yes_no("simulated", "made by the rehearsal"),
        ],
    ),
    "events": (
        "Everything that happened during the read: append-only, with a hash chain per reader (07).",
        [
            text("reader_id", "opaque id", required=True),
            integer("sequence", "1, 2, … per reader", required=True),
            text(
                "event",
                "assigned, consented, registered, display, begun, shown, answered, changed, paused,"
                " resumed, closed, locked, withdrawn or erased; missing: no answer of a model",
                required=True,
            ),
            text("blind_id", "the image that the event is about"),
            text("payload", "JSON"),
            text("browser_utc", "ISO 8601, the browser's clock"),
            text("server_utc", "ISO 8601, the server's clock", required=True),
            text("hash", "SHA-256 over the previous hash and this event", required=True),
        ],
    ),
    "readings": (
        "One row per reader and image, in blocks that ask for a label: the final answer (07).",
        [
            text("reader_id", "opaque id", required=True),
            text("blind_id", "as in reading_set.csv", required=True),
            integer("position", "1, 2, … in this reader's order of the block", required=True),
            text("label", "the answer", choices=LABELS, required=True),
            integer("confidence", "1 (a guess) upwards, a step of the study's scale"),
            text("description", "the lung condition in the reader's words"),
            text("findings", "ticked ids joined by |"),
            text("side", "ticked side", choices=SIDES),
            text("cues", "what made the reader decide, joined by |"),
            number(
                "seconds",
                "on screen until answered, pauses excluded; of a model: from request to answer",
            ),
            integer("changes", "how often the answer was changed", required=True),
            yes_no("poor_quality", "ticked: image quality too poor to judge"),
            text("block", "id of the block that asked"),
        ],
    ),
    "planning": (
        "Power and images needed, by number of readers; the share of real images is that of the"
        " reading set, or one half if it has one kind only (06).",
        [
            integer("readers", "number of readers", required=True),
            integer("images", "number of images in this study", required=True),
            number("power_area", "power to distinguish the hoped-for mean area from 0.5"),
            number("power_difference", "power to distinguish two generators; needs 5 readers"),
            integer("images_area", "images needed for the hoped-for area; empty: over 2000"),
            integer(
                "images_difference",
                "images needed for two generators; empty: over 2000, or fewer than 5 readers",
            ),
            integer("images_kappa_binary", "images needed for kappa of fake and not fake"),
            integer("images_kappa", "images needed for kappa of real, uncertain and fake"),
        ],
    ),
    "sources": (
        "What the licences of the images in a reading set allow: one row per run, origin and"
        " licence (06).",
        [
            text("run", "the source run", required=True),
            text("origin", "the truth of its images", choices=ORIGINS, required=True),
            text("licence", "as in images.csv of the source"),
            yes_no("may_leave", "may be sent to another machine", required=True),
            yes_no("may_be_shown", "visitors of the companion page may see them", required=True),
            yes_no("may_be_released", "may be published", required=True),
        ],
    ),
    "models": ("One row per reading of a model (07).", [*MODEL_COLUMNS]),
    "missing_answers": (
        "One row per image that a model did not answer (07).",
        [
            text("reader_id", "opaque id", required=True),
            text("block", "id of the block that asked", required=True),
            text("blind_id", "as in reading_set.csv", required=True),
            text("reason", "refused, cut off, or what was wrong with the answer", required=True),
            yes_no("simulated", "answered by the rehearsal's stand-in"),
        ],
    ),
    "given_answers": (
        (
            "One row per valid answer to a question: the file answers.csv of 07. readings.csv is"
            " derived from it."
        ),
        [
            text("reader_id", "opaque id", required=True),
            text("block", "id of the block that asked, or reader", required=True),
            text(
                "blind_id",
                "as in reading_set.csv; for a pair its left image; missing if asked only once",
            ),
            text("question", "id in questions.csv", required=True),
            text(
                "value",
                "several joined by |; a step of a scale as its number; marks as JSON: x, y of the"
                " upper left corner, w and h (0 for a point) in pixels of the image that was read,"
                " and the cue",
                required=True,
            ),
        ],
    ),
    "readers": (
        "One row per reader (07).",
        [
            text("reader_id", "opaque id", required=True),
            text("kind", "who answered; missing: a person", choices=("person", "model")),
            number("years", "years of experience"),
            text("specialty", "as the reader stated"),
            yes_no("prior_ai", "prior knowledge of AI and generative models"),
            yes_no("display_steps_seen", "found both steps of the display check"),
            text("room_light", "as the reader stated", choices=("dark", "dimmed", "bright")),
            text(
                "device",
                "as stated",
                choices=("diagnostic", "desktop", "laptop", "tablet", "phone"),
            ),
            text("consent_utc", "ISO 8601"),
            text("locked_utc", "ISO 8601; missing while the read is open"),
            text(
                "withdrawn_utc",
                "ISO 8601; if set, the reader's answers are in events.csv alone, until erased",
            ),
            yes_no("simulated", "a simulated reader", required=True),
        ],
    ),
    "per_image": (
        (
            "One row per image of the read: the truth, the votes, and the distance to the nearest"
            " training case (08)."
        ),
        [
            text("image_id", "as in images.csv of its source", required=True),
            integer("case", "its number in the release's scores.imrmc and scores.xlsx"),
            integer("cluster", "shared by images of one prompt or of one patient"),
            text("blind_id", "of the first presentation", required=True),
            text("run", "the source run"),
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            text("view", "PA, AP, LL (lateral) or axial"),
            text("origin", "the truth", choices=ORIGINS, required=True),
            text("generator", "generator of the image; missing for real images"),
            text("finding", "ids joined by |"),
            text("prompt_id", "stable id of the prompt; generated only"),
            yes_no("simulated", "made by the rehearsal"),
            *(
                integer(f"votes_{label}", f"readers whose first answer was {label}", required=True)
                for label in LABELS
            ),
            integer("readers", "readers who answered", required=True),
            text("labels", "reader:label, joined by |"),
            number("median_seconds", "seconds on screen, median over readers"),
            number("mean_confidence", "mean over readers"),
            text("cues", "cue:number of readers, joined by |"),
            text("descriptions", "reader: words, joined by /"),
            yes_no("fooled", "generated, and more readers called it real than fake", required=True),
            text("nearest_image_id", "the nearest training case; generators trained here only"),
            number("distance", "distance to that case, as in nearest.csv"),
            yes_no("copy", "nearer than the calibrated threshold"),
        ],
    ),
    "answers": (
        (
            "One row per answer that counts in the analysed block, with the truth. Training cases"
            " and readers who withdrew are left out (08)."
        ),
        [
            text("image_id", "as in images.csv of its source", required=True),
            text("reader", "R1, R2, …", required=True),
            integer("presentation", "1 first, 2 the hidden repeat", required=True),
            integer("position", "in this reader's order", required=True),
            text("origin", "the truth", choices=ORIGINS, required=True),
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            text("label", "the answer", choices=LABELS, required=True),
            integer("confidence", "1 (a guess) and up"),
            number("score", "negative: real, 0: uncertain, positive: fake; further from 0: surer"),
            text("description", "the lung condition in the reader's words"),
            text("findings", "ticked ids joined by |"),
            text("side", "ticked side", choices=SIDES),
            text("cues", "joined by |"),
            number(
                "seconds",
                "on screen until answered, pauses excluded; of a model: from request to answer",
            ),
            integer("changes", "how often the answer was changed"),
        ],
    ),
    "reader_summary": (
        "One row per reader who has not withdrawn (08).",
        [
            text("reader", "R1, R2, …", required=True),
            number("years", "years of experience"),
            text("specialty", "as the reader stated"),
            yes_no("prior_ai", "prior knowledge of AI and generative models"),
            yes_no("simulated", "a simulated reader"),
            integer("answered", "number of images answered", required=True),
            integer("missing", "number of images without an answer", required=True),
            number("median_seconds", "median seconds on screen"),
            *(
                integer(f"labelled_{label}", f"images labelled {label}", required=True)
                for label in LABELS
            ),
            yes_no("locked", "the reader has locked the answers"),
            integer("poor_quality", "images whose quality the reader found too poor to judge"),
            yes_no("display_steps_seen", "found both steps of the display check"),
            text("room_light", "as the reader stated"),
            text("device", "as the reader stated"),
        ],
    ),
    "agreement": (
        "Agreement between readers, per group of images (08).",
        [text("group", "group of images", required=True), *_coefficient()],
    ),
    "agreement_pairs": (
        "Agreement of every pair of readers over all images (08).",
        [
            text("reader_a", "first reader of the pair", required=True),
            text("reader_b", "second reader of the pair", required=True),
            *_coefficient(),
        ],
    ),
    "agreement_weighted": (
        "Weighted agreement: the labels are ordered real, uncertain, fake (08).",
        [
            text(
                "weights",
                "weights of disagreement; krippendorff uses its ordinal metric",
                required=True,
            ),
            *_coefficient(),
        ],
    ),
    "intra_reader": (
        "Agreement of readers with themselves on the repeats (08).",
        [
            text("reader", "R1, R2, …", required=True),
            *_coefficient(images="number of images answered twice", readers=""),
        ],
    ),
    "accuracy": (
        "Accuracy of every reader with uncertain counted in three ways, and d′ (08).",
        [
            text("reader", "R1, R2, …", required=True),
            text("stratum", STRATUM, required=True),
            text(
                "policy",
                "own category, wrong, dropped; none for d′",
                choices=("own", "wrong", "dropped", "none"),
                required=True,
            ),
            text(
                "measure",
                "sensitivity, specificity, accuracy, or a share such as fake of generated; dprime"
                " and criterion at the thresholds fake | rest and real | rest; dprime ordinal",
                required=True,
            ),
            *ESTIMATE_COLUMNS,
            integer("count", "images of the numerator; missing for d′ and criterion"),
            integer("total", "images of the denominator; for d′ and criterion all answered images"),
            integer("left_out", "uncertain answers left out"),
            integer("clusters", "different prompts and patients among them"),
            number("chance", "expected if the reader's labels were shuffled among the images"),
            text("reason", "why a number is missing"),
        ],
    ),
    "areas": (
        "Area under the ROC curve of every reader, by DeLong's method (08).",
        [
            text("reader", "R1, R2, …", required=True),
            text("stratum", STRATUM, required=True),
            *ESTIMATE_COLUMNS,
            number("se", "standard error"),
            number("df", "degrees of freedom"),
            number("statistic", "test statistic against 0.5"),
            number("p", "two-sided p-value"),
            integer("images", "images with a score"),
            integer("dropped", "images without a score"),
            text("reason", "why a number is missing"),
        ],
    ),
    "roc": (
        "ROC curves: one row per reader and threshold (08).",
        [
            text(
                "source",
                "all, or the generator whose images are beside the real ones",
                required=True,
            ),
            text("reader", "R1, R2, …", required=True),
            number("threshold", "scores at least this high count as fake; inf: none does"),
            number("false_alarms", "share of real images called fake"),
            number("hits", "share of generated images called fake"),
        ],
    ),
    "source_areas": (
        "The mean area of these readers over all images, and for each generator (08).",
        [
            text(
                "source",
                "all, or the generator whose images are beside the real ones",
                required=True,
            ),
            *ESTIMATE_COLUMNS,
            number("se", "standard error"),
            number("df", "degrees of freedom"),
            number("statistic", "t, against 0.5"),
            number("p", "two-sided p-value"),
            integer("real", "number of real images"),
            integer("generated", "number of generated images"),
            integer("readers", "readers with enough answers"),
            integer("images", "images that a reader answered"),
            integer("dropped", "images that no reader answered"),
            integer("incomplete", "images that some readers, but not all, answered"),
            integer("answers", "number of answers used"),
            number("fewest", "number of images, or of prompts or patients, of the rarer kind"),
            text("reason", "why a number is missing"),
        ],
    ),
    "comparisons": (
        "Difference of the mean areas of two sets of images, or groups of readers, a minus b (08).",
        [
            text("by", "modality, generator, or prior knowledge of AI", required=True),
            text("a", "the first of the two", required=True),
            text("b", "the second of the two", required=True),
            number("area_a", "mean area of the first"),
            number("area_b", "mean area of the second"),
            *ESTIMATE_COLUMNS,
            number("general_low", "lower end for readers in general"),
            number("general_high", "upper end for readers in general"),
            number("statistic", "t, readers in general"),
            number("df", "degrees of freedom"),
            number("p", "two-sided p-value against no difference, readers in general"),
            number("p_holm", "p-value corrected for all comparisons by Holm's method"),
            integer("readers", "readers with enough answers"),
            integer("images", "number of images of both together"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "model_effects": (
        "Odds ratios of a right answer from the mixed model, and the effects not in it (08).",
        [
            text("effect", "what may be related to right answers", required=True),
            text("level", "level whose odds are compared"),
            text("reference", "level with which they are compared"),
            *ESTIMATE_COLUMNS,
            number("statistic", "t of the log odds"),
            number("df", "degrees of freedom (Satterthwaite)"),
            number("p", "two-sided p-value against no effect"),
            number("p_holm", "p-value corrected for all effects by Holm's method"),
            text("reason", "why the effect is not in the model"),
        ],
    ),
    "drift": (
        "Changes within readers: over position, and between right and wrong answers (08).",
        [
            text(
                "measure",
                "accuracy over position (difference of shares, last minus first image), time over"
                " position (ratio of last to first image), or time of right answers (ratio of"
                " right to wrong answers)",
                required=True,
            ),
            *ESTIMATE_COLUMNS,
            number("statistic", "t over the readers' slopes"),
            number("df", "degrees of freedom"),
            number("p", "two-sided p-value against no change, for readers in general"),
            integer("readers", "readers with enough answers"),
            integer("answers", "number of answers used"),
            text("reason", "why a number is missing"),
        ],
    ),
    "drift_course": (
        "Accuracy and time in each fifth of the read, means over readers (08).",
        [
            text("measure", "accuracy (share of right answers) or seconds (geometric mean)"),
            integer("fifth", "fifth of the reader's own order, 1 to 5"),
            *ESTIMATE_COLUMNS,
            integer("readers", "number of readers who answered in this fifth"),
            integer("answers", "number of answers used"),
        ],
    ),
    "subgroups": (
        "Shares of the labels within groups, for the readers of this study (08).",
        [
            text("by", "property that defines the groups", required=True),
            text("group", "value of that property", required=True),
            text("truth", "origin of the images", choices=ORIGINS, required=True),
            text("measure", "called real, called fake, uncertain", required=True),
            *ESTIMATE_COLUMNS,
            integer("count", "answers with this label"),
            integer("answers", "all answers of the group to images of this origin"),
            integer("images", "different images"),
            integer("clusters", "different prompts and patients"),
            integer("readers", "number of readers who gave these answers"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "findings_counted": (
        "Findings that readers ticked or described in words (08).",
        [
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            text("origin", "the truth", choices=ORIGINS, required=True),
            text("finding", "id of the finding", required=True),
            text("name", "name of the finding"),
            integer("answers", "answers with this finding", required=True),
            integer("images", "number of different images", required=True),
            integer("ticked", "answers where it was ticked"),
            integer("in_text", "answers whose description names it"),
            integer("of_answers", "all answers of this modality and origin", required=True),
            number("share", "share of the answers with this finding"),
        ],
    ),
    "findings_asked": (
        "Findings expected by prompts and labels, and ticked or named by the readers (08).",
        [
            text("finding", "id of the finding", required=True),
            text("name", "name of the finding"),
            text("origin", "the truth", choices=ORIGINS, required=True),
            text("reader", "R1, R2, …, or these readers (all together)", required=True),
            integer("named", "answers that tick or name it where it is expected"),
            integer("asked", "described answers to images where it is expected"),
            number("sensitivity", "named divided by asked"),
            number("low", "lower end of its 95 % interval"),
            number("high", "upper end of its 95 % interval"),
            text("reason", "why an interval is missing"),
            integer("silent", "answers that neither tick nor name it where it is not expected"),
            integer("others", "described answers to images where it is not expected"),
            number("specificity", "silent divided by others"),
            number("others_low", "lower end of its 95 % interval"),
            number("others_high", "upper end of its 95 % interval"),
            text("others_reason", "why an interval is missing"),
        ],
    ),
    "findings_agreement": (
        "Agreement on whether a finding is present (08).",
        [
            text("finding", "id of the finding", required=True),
            text("name", "name of the finding"),
            integer("answers", "answers with this finding", required=True),
            integer("images", "number of different images", required=True),
            integer("alike", "images on which all their readers agree"),
            integer("of_images", "images with several answers"),
            number("share", "alike divided by of_images"),
            number("low", "lower end of the share's 95 % interval"),
            number("high", "upper end of the share's 95 % interval"),
            number("percent", "percent agreement"),
            number("fleiss", "Fleiss' kappa"),
            number("gwet", "Gwet's AC1"),
            text("reason", "why a number is missing"),
        ],
    ),
    "descriptions": (
        "Examples in the readers' words (08).",
        [
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            text("origin", "the truth", choices=ORIGINS, required=True),
            text("label", "the answer", choices=LABELS, required=True),
            text("reader", "R1, R2, …", required=True),
            text("image_id", "as in images.csv of its source", required=True),
            text("description", "the lung condition in the reader's words", required=True),
        ],
    ),
    "coverage": (
        (
            "How often 95 % intervals contain the true coefficient in simulated studies of the same"
            " size (08)."
        ),
        [
            text("coefficient", COEFFICIENT, required=True),
            number("truth", "true value in the simulation"),
            number("coverage", "share of the intervals that contain the true value"),
            number("undefined", "share of the simulated studies without an interval"),
            integer("images", "number of images per study", required=True),
            integer("studies", "number of simulated studies", required=True),
        ],
    ),
    "question_answers": (
        "Every answer that counts, with the truth where it is about an image. Training cases,"
        " hidden repeats and readers who withdrew are left out (08).",
        [
            text("reader", "R1, R2, …", required=True),
            text("block", "id of the block that asked, or reader", required=True),
            text(
                "image_id",
                "as in images.csv of its source; of a pair left|right; missing where asked once",
            ),
            text("origin", "the truth; missing where asked once", choices=TRUTHS),
            text("question", "id in questions.csv", required=True),
            text("value", "the answer; several joined by |", required=True),
        ],
    ),
    "pairs": (
        "One row per pair of a forced choice, with the truth (08).",
        [
            text("block", "id of the block", required=True),
            text("modality", "modality of both images", choices=MODALITIES, required=True),
            text("left", "image_id", required=True),
            text("right", "image_id", required=True),
            text("generated", "which is generated", choices=("left", "right"), required=True),
            text("matched", "what both have in common: finding and view, one of them, or none"),
            integer("answers", "number of readers who chose"),
            integer("correct", "number of these who picked the generated image"),
            integer("called_left", "number of these who picked the left image"),
        ],
    ),
    "pair_shares": (
        "How often readers picked the generated image of a pair, and how often the left one (08).",
        [
            text("block", "id of the block", required=True),
            text("reader", "R1, R2, …, these readers, or readers in general", required=True),
            text("measure", "correct, left, or correct with a given confidence", required=True),
            *ESTIMATE_COLUMNS,
            integer("count", "choices that were correct, or of the left image"),
            integer("total", "all choices, or those with this confidence"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "marks": (
        "One row per mark on an image, with the truth (08). Positions and lengths are shares of"
        " the canvas's side.",
        [
            text("reader", "R1, R2, …", required=True),
            text("block", "id of the block that asked", required=True),
            text("question", "id in questions.csv", required=True),
            text("image_id", "as in images.csv of its source", required=True),
            text("blind_id", "as in reading_set.csv"),
            text("origin", "the truth", choices=ORIGINS, required=True),
            text("modality", "modality of the image", choices=MODALITIES, required=True),
            text("source", "generator or real images, and modality", required=True),
            integer("mark", "1, 2, … of this reader on this image", required=True),
            number("x", "position of the point, or of the box's left side", required=True),
            number("y", "position of the point, or of the box's upper side", required=True),
            number("width", "of the box; 0 for a point", required=True),
            number("height", "of the box; 0 for a point", required=True),
            text("region", "ninth of the image that contains the mark's centre", required=True),
            text("cue", "cue that the reader chose for it"),
        ],
    ),
    "mark_regions": (
        "How often answers marked a region of the images, by source (08).",
        [
            *QUESTION_COLUMNS,
            text(
                "source",
                "generator or real images, and modality; or all images of one origin",
                required=True,
            ),
            text("region", "anywhere, or a ninth of the image", required=True),
            *ESTIMATE_COLUMNS,
            integer("count", "answers with a mark there"),
            integer("total", "answers about images of this source"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "mark_agreement": (
        "Whether readers mark the same ninths of generated images (08).",
        [*QUESTION_COLUMNS, *_coefficient(images="number of ninths of images used")],
    ),
    "question_counts": (
        "How often each option of a question was chosen, by truth (08).",
        [
            *QUESTION_COLUMNS,
            text("origin", "the truth", choices=TRUTHS, required=True),
            text("value", "the option", required=True),
            text("text", "the option as readers see it"),
            *ESTIMATE_COLUMNS,
            integer("count", "answers with this option"),
            integer("total", "all answers"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "question_once": (
        "How many readers gave each answer to a question that was asked once (08).",
        [
            *QUESTION_COLUMNS,
            text("kind", "of the question", choices=QUESTION_KINDS, required=True),
            text(
                "group", "all readers, or those with one answer to another question", required=True
            ),
            text("value", "option or words; of numbers: lowest, median, highest", required=True),
            text("text", "the option as readers see it"),
            *ESTIMATE_COLUMNS,
            integer("count", "readers; missing for numbers"),
            integer("total", "readers who answered"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "question_agreement": (
        "Agreement between readers on every question with one answer (08).",
        [*QUESTION_COLUMNS, *_coefficient()],
    ),
    "question_means": (
        "Mean answers of these readers by truth: steps, numbers, or shares of yes or of right"
        " labels (08).",
        [
            *QUESTION_COLUMNS,
            text("origin", "the truth", choices=TRUTHS, required=True),
            *(one for one in DIFFERENCE_COLUMNS if one.name not in ("before", "after")),
        ],
    ),
    "question_contrasts": (
        "Generated against real images, and a later block against an earlier one, whose id is in"
        " block (08).",
        [
            *QUESTION_COLUMNS,
            text("contrast", "the two means compared, as a minus b", required=True),
            text("reader", "R1, …, these readers, or readers in general", required=True),
            *DIFFERENCE_COLUMNS,
        ],
    ),
    "checklist": (
        "Items of GRRAS, CLAIM 2024 and STARD-AI, and the ethics approval (08).",
        [
            text("guideline", "name of the guideline", required=True),
            text("item", "number of the item"),
            text("topic", "what the item asks for", required=True),
            text(
                "status",
                "filled from the study's files, or open",
                choices=("filled", "open"),
                required=True,
            ),
            text("text", "the answer, or where it is"),
        ],
    ),
    "main_numbers": (
        "The numbers that recompute.py and recompute.R compute again (08, release/).",
        [
            text("number", "what was computed: measure, coefficient or difference", required=True),
            text("group", "images, policy for uncertain, readers, or the two compared"),
            text("reader", "R1, R2, …; missing for numbers of all readers"),
            *ESTIMATE_COLUMNS,
        ],
    ),
    "comparison": (
        "The published numbers beside this study's (09).",
        [
            text("what", "what the number counts", required=True),
            text("published", "as printed, or not published", required=True),
            number("published_share", "share of the images"),
            number("published_low", "lower end of the 95 % Wilson interval"),
            number("published_high", "upper end of the 95 % Wilson interval"),
            text("here", "this study's number", required=True),
            number("share", "share of the images"),
            number("low", "lower end of the 95 % Wilson interval"),
            number("high", "upper end of the 95 % Wilson interval"),
            text("note", "how the two numbers differ"),
        ],
    ),
    "bounds": (
        "Agreement that the published counts allow (09).",
        [
            text("both_fake", "images both called fake: a number, or any", required=True),
            text("coefficient", COEFFICIENT, required=True),
            number("low", "lowest value over all tables"),
            number("high", "highest value over all tables"),
            yes_no("exact", "all possible tables were enumerated", required=True),
            integer("tables", "number of tables enumerated", required=True),
            integer("undefined", "tables where the coefficient has no value", required=True),
        ],
    ),
    "model_readings": (
        "One row per reading of a model, as the report names it (08).",
        [
            text("reader", "name in the report", required=True),
            text("run", "run of 07_ask_models", required=True),
            integer("memory", "earlier images that were sent again with each image"),
            text("approval", "section of protocol and consent that lets real images be sent"),
            text("reasons", "reasons for missing answers, with counts"),
            *MODEL_COLUMNS,
        ],
    ),
    "model_agreement": (
        "Agreement of each model with each reader and with their majority (08).",
        [
            text("reader", "the model", required=True),
            text("other", "R1, R2, … or majority", required=True),
            *_coefficient("percent, cohen, gwet (AC1)", readers=""),
        ],
    ),
    "model_differences": (
        "Each model minus the readers' mean (08).",
        [
            text("reader", "the model", required=True),
            text("measure", "accuracy, or area (under the ROC curve)", required=True),
            number("model", "the model's value"),
            number("readers_mean", "mean over the readers"),
            *ESTIMATE_COLUMNS,
            number("general_low", "lower end for readers in general"),
            number("general_high", "upper end for readers in general"),
            integer("readers", "readers in the mean"),
            integer("images", "images that the model answered"),
            text("reason", "why a number is missing"),
        ],
    ),
    "model_consistency": (
        "Agreement of each model with itself (08).",
        [
            text("reader", "the model", required=True),
            text("over", "readings of the set, or hidden repeats", required=True),
            *_coefficient(
                "percent, gwet (AC1), and fleiss (readings) or cohen (repeats)",
                readers="readings compared; 2 for repeats",
            ),
        ],
    ),
}

# The tables about models have the same columns as those about readers.
_BESIDE = {"answers": "Answers of models to images", "accuracy": "Accuracy of models", "areas": ""}
for _name, _said in _BESIDE.items():
    _said = f"{_said or 'Area under the ROC curve of models'} (08). Same columns as {_name}.csv."
    _reader = text("reader", "the model: its name in the report", required=True)
    TABLES[f"model_{_name}"] = (
        _said,
        [_reader if column.name == "reader" else column for column in TABLES[_name][1]],
    )

ANALYSIS = (*list(TABLES)[list(TABLES).index("answers") :],)
for _name in ANALYSIS:
    if all(column.name != "simulated" for column in TABLES[_name][1]):
        TABLES[_name][1].append(yes_no("simulated", "computed from simulated data"))

# Files of 08's release/ whose columns are those of no other table.
_IMAGE = (
    *("image_id", "sha256", "modality", "view", "finding", "side", "caption", "generator"),
    *("width", "height", "bits", "licence", "credit", "prompt_id"),
)
_declared = {column.name: column for column in TABLES["images"][1]}
_once = {column.name: column for column in TABLES["reader_summary"][1]}
TABLES |= {
    "release/images/metadata": (
        "One row per image of the release, as in images.csv of its source (08).",
        [
            text("file_name", "PNG file beside this table", required=True),
            *(_declared[name] for name in _IMAGE),
            yes_no("simulated", "computed from simulated data"),
        ],
    ),
    "release/readers": (
        "One row per reader, without specialty and dates (08).",
        [
            *(_once[name] for name in ("reader", "prior_ai", "answered", "missing", "simulated")),
            text("years_of_experience", "up to 5, 6 to 10, 11 to 20, or over 20"),
        ],
    ),
}


def columns(name: str) -> list[Column]:
    """The declared columns of a table. Raises KeyError for an unknown table."""
    return TABLES[name][1]


def column_names(table: str) -> list[str]:
    """The names of a table's declared columns, without the mark for simulated data."""
    return [c.name for c in columns(table) if c.name != "simulated" or table not in ANALYSIS]
