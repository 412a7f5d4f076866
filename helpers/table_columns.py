"""The columns of every table on disk, written down once: what each is called, holds and allows."""

from dataclasses import dataclass

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

    name: str
    kind: str
    meaning: str
    choices: tuple[str, ...] = ()
    required: bool = False


def text(name, meaning, *choices, required=False):
    return Column(name, "text", meaning, choices, required)


def ids(name, meaning, *choices, required=False):
    return Column(name, "ids", meaning, choices, required)


def integer(name, meaning, required=False):
    return Column(name, "integer", meaning, (), required)


def number(name, meaning, required=False):
    return Column(name, "number", meaning, (), required)


def yes_no(name, meaning, required=False):
    return Column(name, "yes/no", meaning, (), required)


def _estimate():
    return (
        number("estimate", "value"),
        number("low", "lower end of the 95 % interval"),
        number("high", "upper end of the 95 % interval"),
    )


def _coefficient():
    names = (
        text("coefficient", "name", required=True),
        *_estimate(),
        number("se", "standard error"),
    )
    return (
        *names,
        integer("images", "number of images used"),
        integer("readers", "number of readers used"),
        text("reason", "why a number is missing"),
    )


def _model():
    return (
        text("reader_id", "opaque id", required=True),
        text("kind", "who answered", "model", required=True),
        text("label", "name in the report", required=True),
        text("model", "as requested", required=True),
        text("answered_by", "as the service names it, several joined by |"),
        text("provider", "openai, azure, local or rehearsal", required=True),
        text("first_utc", "ISO 8601, of the first answer"),
        text("last_utc", "ISO 8601, of the last answer"),
        text("instructions_sha256", "of the text of instructions", required=True),
        text("settings", "JSON: what it was asked with", required=True),
        integer("answered", "number of images", required=True),
        integer("missing", "number of images without an answer", required=True),
        number("cost_usd", "of all requests of this reading, USD"),
        yes_no("simulated", "the rehearsal's stand-in", required=True),
    )


def _asked():
    return (
        text("block", "id of the block", required=True),
        text("question", "id in questions.csv", required=True),
    )


def _difference():
    return (
        *_estimate(),
        number("before", "mean of the real images, or of the earlier block"),
        number("after", "mean of the generated images, or of the later block"),
        integer("answers", "that enter"),
        integer("images", "that enter"),
        integer("readers", "that enter"),
        text("reason", "why an interval is missing"),
    )


MODALITIES = ("xray", "ct")
ORIGINS = ("real", "generated")
LABELS = ("real", "fake", "uncertain")
SPLITS = ("train", "validation", "test")
VIEWS = ("PA", "AP", "LL", "axial")
QUESTION_KINDS = (*("choice", "choices", "scale", "text", "number", "yes/no", "findings", "side"),)
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
            text("sha256", "of the PNG file", required=True),
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("view", "PA, AP, LL (lateral) or axial"),
            text("finding", "ids from helpers/findings.py, several joined by |"),
            text("side", "of the finding, the patient's side", *SIDES),
            text("caption", "text written from modality, view, finding and side"),
            text("origin", "real or generated", *ORIGINS, required=True),
            text("generator", "model, checkpoint run or data set that made a generated image"),
            yes_no("simulated", "made by the rehearsal", required=True),
            text("split", "patient-level split of the cases; missing for generated", *SPLITS),
            text("patient", "keyed hash of the patient id; missing for generated"),
            text("duplicate_group", "shared by images that are duplicates of each other"),
            text("sex", "F or M", "F", "M"),
            text("age_band", "decade, e.g. 50-59; 90+ is one band"),
            integer("width", "pixels of the image in its own shape, without bars", required=True),
            integer("height", "pixels", required=True),
            integer("bits", "grey depth of the stored pixels (1 to 16)", required=True),
            text("licence", "of the image"),
            text("credit", "people or institutions to credit"),
            text("prompt_id", "stable id of the prompt; generated only"),
            text("made_from", "image_id of the real image that a generated one was made from"),
        ],
    ),
    "rejected": (
        "One row per file that 01 rejected.",
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
            text("layout", "the metadata layout that described it", required=True),
            text("kind", "file format and compression", required=True),
            integer("original_width", "pixels", required=True),
            integer("original_height", "pixels", required=True),
            integer("original_bits", "stored grey depth"),
            text(
                "window", "center/width (CT in HU), VOI LUT, full range or as stored", required=True
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
        "The images that 02 requests from an image API; the file is beside its YAML.",
        [
            text("prompt_id", "stable id; when empty a hash of the prompt"),
            text("modality", "of the requested image", *MODALITIES, required=True),
            text("view", "LL is lateral", *VIEWS),
            ids("finding", "ids from helpers/findings.py, several joined by |", *FINDINGS),
            text("side", "of the finding, the patient's side", *SIDES),
            text("wording", "which wording of helpers/findings.py the prompt uses", *WORDINGS),
            text("prompt", "the full prompt; empty: it is written from the columns before"),
            integer("count", "number of images requested", required=True),
        ],
    ),
    "ledger": (
        "Requests to the image API: a line is written before and after each one (02).",
        [
            text("request_id", "id of this attempt, assigned by the study", required=True),
            text("image_id", "id of the requested image", required=True),
            text("prompt_id", "stable id of the prompt", required=True),
            text("prompt", "as sent"),
            text("model", "as requested"),
            text("size", "WIDTHxHEIGHT as sent; missing when none was sent"),
            text("quality", "as sent; missing when none was sent"),
            integer("attempt", "1 for the first try of this image"),
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
                "sent, submitted (in a batch), ok, refused (never sent again), failed or unknown"
                " (may have been billed)",
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
            text("checkpoint", "run that trained it", required=True),
            text("prompt_id", "stable id of the prompt", required=True),
            integer("replicate", "0, 1, … within the prompt", required=True),
            integer("seed", "of this image's own noise", required=True),
            text("scheduler", "sampler"),
            integer("steps", "denoising steps"),
            number("guidance", "classifier-free guidance scale"),
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
            integer("seed", "of this image's own noise", required=True),
            text("reason", "what is wrong with it", required=True),
        ],
    ),
    "quality": (
        "Fidelity and diversity of each generated source (05).",
        [
            text("metric", "name of the measure", required=True),
            text("source", "run and generator, or the real-against-real baseline", required=True),
            text("modality", "what the images are of", *MODALITIES),
            integer("images", "images of the source", required=True),
            integer("reference_images", "number of real images in the comparison"),
            number("estimate", "value", required=True),
            number("low", "lower end of the 95 % interval"),
            number("high", "upper end of the 95 % interval"),
            number(
                "baseline", "the same measure between two halves of the real images, equally many"
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
            yes_no("release", "may be released; false for copies", required=True),
        ],
    ),
    "leakage": (
        "What gives a source away without the anatomy (05).",
        [
            text("source", "run and generator", required=True),
            text("modality", "what the images are of", *MODALITIES),
            text(
                "stage",
                "before or after the standardisation of 06",
                "before",
                "after",
                required=True,
            ),
            text("feature", "one feature, or joint", required=True),
            number(
                "auc",
                "grouped cross-validated area under the curve, generated against real",
                required=True,
            ),
            number("low", "lower end of the 95 % interval"),
            number("high", "upper end of the 95 % interval"),
            number("p", "two-sided p value of the permutation test"),
        ],
    ),
    "sampling_prompts": (
        (
            "What 04 samples; the file is beside its YAML. The prompt is written like the training"
            " captions."
        ),
        [
            text("prompt_id", "unique", required=True),
            text("modality", "of the images", *MODALITIES, required=True),
            text("view", "LL is lateral", *VIEWS),
            ids("finding", "ids of the findings, several joined by |", *FINDINGS),
            text("side", "of the finding", *SIDES),
            text("wording", "how the prompt is written; empty: like captions", *WORDINGS),
            text("prompt", "the full prompt; empty: it is written from the columns before"),
            integer("count", "images per guidance scale and number of steps", required=True),
        ],
    ),
    "draw": (
        (
            "What is read; the file is beside the YAML of 06. Each row says how many images to draw"
            " at random from one source."
        ),
        [
            text("run", "run of 01, 02 or 04", required=True),
            text("origin", "which images of that run", *ORIGINS, required=True),
            text("generator", "as in images.csv; empty: any"),
            text("modality", "what the images are of", *MODALITIES, required=True),
            text(
                "finding",
                "an id; empty: any; match (real images only): each real image has the finding and"
                " view of one generated image",
                "match",
                *FINDINGS,
            ),
            integer("count", "number of images", required=True),
            yes_no(
                "training", "shown to get used to the page, or to learn; not scored", required=True
            ),
            text("group", "which blocks of blocks.csv show it; empty: main"),
        ],
    ),
    "questions": (
        "The questions for the readers; the file is beside the YAML of 06. One row per question.",
        [
            text(
                "id",
                "small letters, digits and _; label is the published question, and confidence,"
                " description, findings, side, cues, poor_quality, years, specialty, prior_ai,"
                " unusual and noticed have an analysis of their own too",
                required=True,
            ),
            text(
                "block",
                "where it is asked: ids of blocks.csv joined by |, or reader (once, at the"
                " beginning); empty: with every image",
            ),
            text("text", "as readers see it", required=True),
            text(
                "kind",
                "choice (one of the options), choices (several), scale (one step), text, number,"
                " yes/no, findings (several), side",
                *QUESTION_KINDS,
                required=True,
            ),
            text(
                "options",
                "joined by |: value=text or the text alone; for a scale its steps from low to high;"
                " for findings their ids (empty: all)",
            ),
            yes_no("required", "the answer cannot be saved without it"),
            text("shown_when", "question=value of an earlier question; empty: always"),
        ],
    ),
    "blocks": (
        "The parts of the read, in order; the file is beside the YAML of 06. One row per block.",
        [
            text("block", "id: small letters, digits and _; readers never see it", required=True),
            integer("order", "1, 2, …", required=True),
            text("title", "of the page while this block is read", required=True),
            text("instructions", "shown before it; an empty line begins a paragraph"),
            text(
                "images",
                "groups of draw.csv, several joined by |; empty: only the text and the block's"
                " questions, once",
            ),
            yes_no(
                "unaware", "06 refuses texts that mention generation up to the end of this block"
            ),
            yes_no("tell_truth", "show the truth after each answer, for learning; never scored"),
            yes_no("lock", "its answers are final once the reader goes on"),
            number("after_days", "days to wait after the previous block (washout)"),
        ],
    ),
    "review": (
        "list.csv beside the study's keys: images with text in the pixels that wait for a person"
        " (01).",
        [
            text("image_id", "as in images.csv", required=True),
            text("file", "relative to the folder of images"),
            integer("crops", "pictures of the text beside the list, <image_id>_<n>.png"),
            text("decision", "what to do; empty: not decided yet", "mask", "reject", "keep"),
        ],
    ),
    "reading_set": (
        "The presentations of the reading set, without the truth (06).",
        [
            text("blind_id", "opaque id of a presentation", required=True),
            text("path", "PNG file, relative to reading_set/", required=True),
            text(
                "checksum", "keyed (HMAC-SHA256), so that it does not reveal repeats", required=True
            ),
            text("modality", "what the image is of", *MODALITIES, required=True),
            yes_no("training", "shown before the read, not scored", required=True),
            integer(
                "part",
                "0 training, then 1, 2, 3: a reader's images are shuffled within parts only, so"
                " that repeats keep their distance",
            ),
            text("block", "id of the block that shows it", required=True),
        ],
    ),
    "key": (
        "The sealed truth (06); readable only after 08 has opened it.",
        [
            text("blind_id", "as in reading_set.csv", required=True),
            text("image_id", "as in images.csv of its source", required=True),
            text("run", "the source run"),
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("origin", "the truth", *ORIGINS, required=True),
            text("generator", "what made it; missing for real"),
            text("finding", "ids joined by |"),
            text("view", "PA, AP, LL (lateral) or axial"),
            text("prompt_id", "stable id of the prompt; generated only"),
            text("patient", "keyed hash of the patient id; real only"),
            text("repeat_of", "blind_id of the image's first presentation in the same block"),
            text("block", "id of the block that shows it"),
            yes_no("training", "not scored"),
            yes_no("simulated", "made by the rehearsal"),
        ],
    ),
    "events": (
        "Everything that happened during the read: append-only, with a hash chain per reader (07).",
        [
            text("reader_id", "opaque id", required=True),
            integer("sequence", "1, 2, … per reader", required=True),
            text("event", "what happened", required=True),
            text("blind_id", "of the image that the event is about"),
            text("payload", "JSON"),
            text("browser_utc", "ISO 8601, the browser's clock"),
            text("server_utc", "ISO 8601, the server's clock", required=True),
            text("hash", "SHA-256 over the previous hash and this row", required=True),
        ],
    ),
    "readings": (
        "One row per reader and image, in blocks that ask for a label: the final answer (07).",
        [
            text("reader_id", "opaque id", required=True),
            text("blind_id", "as in reading_set.csv", required=True),
            integer("position", "1, 2, … in this reader's order of the block", required=True),
            text("label", "the answer", *LABELS, required=True),
            integer("confidence", "1 (a guess) upwards, a step of the study's scale"),
            text("description", "the lung condition in the reader's words"),
            text("findings", "ticked ids joined by |"),
            text("side", "ticked side", *SIDES),
            text("cues", "what made the reader decide, joined by |"),
            number("seconds", "on screen until answered, pauses excluded"),
            integer("changes", "how often the answer was changed", required=True),
            yes_no("poor_quality", "ticked: image quality too poor to judge"),
            text("block", "id of the block that asked"),
        ],
    ),
    "sources": (
        "What the licences of the images in a reading set allow: one row per source (06).",
        [
            text("run", "the source run", required=True),
            text("origin", "the truth of its images", *ORIGINS, required=True),
            text("licence", "as in images.csv of the source"),
            yes_no("may_leave", "may be sent to another machine", required=True),
            yes_no("may_be_shown", "visitors of the companion page may see them", required=True),
            yes_no("may_be_released", "may be published", required=True),
        ],
    ),
    "models": ("One row per reading of a model (07).", [*_model()]),
    "missing_answers": (
        "One row per image that a model did not answer (07).",
        [
            text("reader_id", "opaque id", required=True),
            text("block", "id of the block that asked", required=True),
            text("blind_id", "as in reading_set.csv", required=True),
            text("reason", "refused, cut off, or what was wrong with the answer", required=True),
            yes_no("simulated", "the rehearsal's stand-in"),
        ],
    ),
    "given_answers": (
        (
            "answers.csv of 07: every answer that stands, one row per question; readings.csv is its"
            " view."
        ),
        [
            text("reader_id", "opaque id", required=True),
            text("block", "id of the block that asked, or reader", required=True),
            text("blind_id", "as in reading_set.csv; missing for what is asked once"),
            text("question", "id in questions.csv", required=True),
            text("value", "several joined by |; a step of a scale as its number", required=True),
        ],
    ),
    "readers": (
        "One row per reader (07).",
        [
            text("reader_id", "opaque id", required=True),
            text("kind", "who answered; missing: a person", "person", "model"),
            number("years", "of experience"),
            text("specialty", "as registered"),
            yes_no("prior_ai", "prior knowledge of AI and generative models"),
            yes_no("display_steps_seen", "found the darkest and the brightest step of the pattern"),
            text("room_light", "as the reader stated", "dark", "dimmed", "bright"),
            text("device", "as stated", "diagnostic", "desktop", "laptop", "tablet", "phone"),
            text("consent_utc", "ISO 8601"),
            text("locked_utc", "ISO 8601; missing while the read is open"),
            text("withdrawn_utc", "ISO 8601; if set, readings and personal data were removed"),
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
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("view", "PA, AP, LL (lateral) or axial"),
            text("origin", "the truth", *ORIGINS, required=True),
            text("generator", "what made it; missing for real"),
            text("finding", "ids joined by |"),
            text("prompt_id", "stable id of the prompt; generated only"),
            yes_no("simulated", "made by the rehearsal"),
            *(
                integer(f"votes_{label}", f"readers whose first answer was {label}", required=True)
                for label in LABELS
            ),
            integer("readers", "readers who answered", required=True),
            text("labels", "reader:label, joined by |"),
            number("median_seconds", "on screen, over readers"),
            number("mean_confidence", "over readers"),
            text("cues", "cue:number of readers, joined by |"),
            text("descriptions", "reader: words, joined by /"),
            yes_no("fooled", "generated, and more readers called it real than fake", required=True),
            text("nearest_image_id", "the nearest training case; generators trained here only"),
            number("distance", "to that case, as in nearest.csv"),
            yes_no("copy", "nearer than the calibrated threshold"),
        ],
    ),
    "answers": (
        (
            "One row per answer that counts, with the truth. Training cases and readers who"
            " withdrew are left out (08)."
        ),
        [
            text("image_id", "as in images.csv of its source", required=True),
            text("reader", "R1, R2, …", required=True),
            integer("presentation", "1 first, 2 the hidden repeat", required=True),
            integer("position", "in this reader's order", required=True),
            text("origin", "the truth", *ORIGINS, required=True),
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("label", "the answer", *LABELS, required=True),
            integer("confidence", "1 (a guess) and up"),
            number("score", "negative: real, 0: uncertain, positive: fake; further from 0: surer"),
            text("description", "the lung condition in the reader's words"),
            text("findings", "ticked ids joined by |"),
            text("side", "ticked side", *SIDES),
            text("cues", "joined by |"),
            number("seconds", "on screen until answered, pauses excluded"),
            integer("changes", "how often the answer was changed"),
        ],
    ),
    "reader_summary": (
        "One row per reader who has not withdrawn (08).",
        [
            text("reader", "R1, R2, …", required=True),
            number("years", "of experience"),
            text("specialty", "as registered"),
            yes_no("prior_ai", "prior knowledge of AI and generative models"),
            yes_no("simulated", "a simulated reader"),
            integer("answered", "number of images", required=True),
            integer("missing", "number of images", required=True),
            number("median_seconds", "on screen"),
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
        [text("group", "of images", required=True), *_coefficient()],
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
            text("weights", "weighting; krippendorff is ordinal instead", required=True),
            *_coefficient(),
        ],
    ),
    "intra_reader": (
        "Agreement of readers with themselves on the repeats (08).",
        [text("reader", "R1, R2, …", required=True), *_coefficient()],
    ),
    "accuracy": (
        "Accuracy of every reader under the three policies for uncertain, and d′ (08).",
        [
            text("reader", "R1, R2, …", required=True),
            text("stratum", STRATUM, required=True),
            text(
                "policy",
                "own category, wrong, dropped; none for d′",
                *("own", "wrong", "dropped", "none"),
                required=True,
            ),
            text(
                "measure",
                "sensitivity, specificity, accuracy, or a share such as fake of generated; dprime"
                " and criterion at the thresholds fake | rest and real | rest; dprime ordinal",
                required=True,
            ),
            *_estimate(),
            integer("count", "images counted"),
            integer("total", "images in the denominator"),
            integer("left_out", "uncertain answers left out"),
            integer("clusters", "different prompts and patients among them"),
            number("chance", "expected for a reader who gives each label equally often at random"),
            text("reason", "why a number is missing"),
        ],
    ),
    "areas": (
        "Area under the ROC curve of every reader, by DeLong's method (08).",
        [
            text("reader", "R1, R2, …", required=True),
            text("stratum", STRATUM, required=True),
            *_estimate(),
            number("se", "standard error"),
            number("df", "degrees of freedom"),
            number("statistic", "test statistic against 0.5"),
            number("p", "two-sided p value"),
            integer("images", "images with a score"),
            integer("dropped", "images without a score"),
            text("reason", "why a number is missing"),
        ],
    ),
    "roc": (
        "ROC curves: one row per reader and threshold (08).",
        [
            text("reader", "R1, R2, …", required=True),
            number("threshold", "scores at least this high count as fake"),
            number("false_alarms", "share of real images called fake"),
            number("hits", "share of generated images called fake"),
        ],
    ),
    "comparisons": (
        "Which of two is harder to spot: difference of mean areas, a minus b (08).",
        [
            text("by", "what is compared", required=True),
            text("a", "the first", required=True),
            text("b", "the second", required=True),
            number("area_a", "mean area of the first"),
            number("area_b", "mean area of the second"),
            *_estimate(),
            number("general_low", "lower end for readers in general"),
            number("general_high", "upper end for readers in general"),
            number("statistic", "t, readers in general"),
            number("df", "degrees of freedom"),
            number("p", "two-sided, against no difference"),
            number("p_holm", "the same, corrected for all comparisons by Holm's method"),
            integer("readers", "who answered enough"),
            integer("images", "of both together"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "subgroups": (
        "Shares of the labels within groups, for the readers of this study (08).",
        [
            text("by", "property that defines the groups", required=True),
            text("group", "value of that property", required=True),
            text("truth", "origin of the images", *ORIGINS, required=True),
            text("measure", "called real, called fake, uncertain", required=True),
            *_estimate(),
            integer("count", "answers with this label"),
            integer("answers", "all answers of the group"),
            integer("images", "different images"),
            integer("clusters", "different prompts and patients"),
            integer("readers", "who gave these answers"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "findings_counted": (
        "Findings that readers ticked or described in words (08).",
        [
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("origin", "the truth", *ORIGINS, required=True),
            text("finding", "id", required=True),
            text("name", "for people"),
            integer("answers", "with this finding", required=True),
            integer("images", "different ones", required=True),
            integer("ticked", "answers where it was ticked"),
            integer("in_text", "answers whose description names it"),
            integer("of_answers", "all answers of this modality and origin", required=True),
            number("share", "share of the answers with this finding"),
        ],
    ),
    "findings_agreement": (
        "Agreement on whether a finding is present (08).",
        [
            text("finding", "id", required=True),
            text("name", "for people"),
            integer("answers", "with this finding", required=True),
            integer("images", "different ones", required=True),
            integer("alike", "images on which all their readers agree"),
            integer("of_images", "images with several answers"),
            number("share", "alike divided by of_images"),
            number("low", "lower end of the share's 95 % interval"),
            number("high", "upper end of the share's 95 % interval"),
            *(number(name, "coefficient") for name in ("percent", "fleiss", "gwet")),
            text("reason", "why a number is missing"),
        ],
    ),
    "descriptions": (
        "Examples in the readers' words (08).",
        [
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("origin", "the truth", *ORIGINS, required=True),
            text("label", "the answer", *LABELS, required=True),
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
            text("coefficient", "name", required=True),
            number("truth", "true value in the simulation"),
            number("coverage", "share that contains the truth, of the studies with an interval"),
            number("undefined", "share of the simulated studies without an interval"),
            integer("images", "per study", required=True),
            integer("studies", "simulated", required=True),
        ],
    ),
    "question_answers": (
        "Every answer about an image, in the clear (08).",
        [
            text("reader", "R1, R2, …", required=True),
            text("block", "id of the block that asked", required=True),
            text("image_id", "as in images.csv of its source", required=True),
            text("origin", "the truth", *ORIGINS, required=True),
            text("question", "id in questions.csv", required=True),
            text("value", "several joined by |", required=True),
        ],
    ),
    "question_counts": (
        "How often each option of a question was chosen, by truth (08).",
        [
            *_asked(),
            text("origin", "the truth", *ORIGINS, required=True),
            text("value", "the option", required=True),
            text("text", "the option as readers see it"),
            *_estimate(),
            integer("count", "answers"),
            integer("total", "of these"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "question_agreement": (
        "Agreement between readers on every question with one answer (08).",
        [*_asked(), *_coefficient()],
    ),
    "question_means": (
        "Mean answers by truth, over these readers: steps, or the share of yes or right (08).",
        [*_asked(), text("origin", "the truth", *ORIGINS, required=True), *_difference()],
    ),
    "question_contrasts": (
        "Generated against real images, and a later block against an earlier one (08).",
        [
            *_asked(),
            text("contrast", "what is taken from what", required=True),
            text("reader", "R1, …, these readers, or readers in general", required=True),
            *_difference(),
        ],
    ),
    "checklist": (
        "Items of GRRAS, STARD and CLAIM (08).",
        [
            text("guideline", "which", required=True),
            text("item", "number"),
            text("topic", "what the item asks for", required=True),
            text(
                "status", "filled from the study's files, or open", "filled", "open", required=True
            ),
            text("text", "the answer, or where it is"),
        ],
    ),
    "comparison": (
        "The published numbers beside this study's (09).",
        [
            text("what", "what the number counts", required=True),
            text("published", "as printed, or not published", required=True),
            number("published_share", "of the images"),
            number("published_low", "lower end of the Wilson interval, 95 %"),
            number("published_high", "upper end of the Wilson interval, 95 %"),
            text("here", "this study's number", required=True),
            number("share", "of the images"),
            number("low", "lower end of the Wilson interval, 95 %"),
            number("high", "upper end of the Wilson interval, 95 %"),
            text("note", "what differs"),
        ],
    ),
    "bounds": (
        "Agreement that the published counts allow (09).",
        [
            text("both_fake", "images both called fake: a number, or any", required=True),
            text("coefficient", "name", required=True),
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
            text("run", "of 07_ask_models", required=True),
            integer("memory", "earlier images that were sent again with each image"),
            text("approval", "where the protocol allows real images to leave the machine"),
            text("reasons", "for missing answers, with counts"),
            *_model(),
        ],
    ),
    "model_agreement": (
        "Agreement of each model with each reader and with their majority (08).",
        [
            text("reader", "the model", required=True),
            text("other", "R1, R2, … or majority", required=True),
            *_coefficient(),
        ],
    ),
    "model_differences": (
        "Each model minus the readers' mean (08).",
        [
            text("reader", "the model", required=True),
            text("measure", "accuracy, or area under the ROC curve", required=True),
            number("model", "the model's value"),
            number("readers_mean", "mean over the readers"),
            *_estimate(),
            number("general_low", "lower end for readers in general"),
            number("general_high", "upper end for readers in general"),
            integer("readers", "readers who enter"),
            integer("images", "images that the model answered"),
            text("reason", "why a number is missing"),
        ],
    ),
    "model_consistency": (
        "Agreement of each model with itself (08).",
        [
            text("reader", "the model", required=True),
            text("over", "readings of the set, or hidden repeats", required=True),
            *_coefficient(),
        ],
    ),
}

# What is told of models has the columns of the same about readers.
_BESIDE = {"answers": "Answers of models to images", "accuracy": "Accuracy of models", "areas": ""}
for _name, _said in _BESIDE.items():
    _said = f"{_said or 'Area under the ROC curve of models'}: columns as {_name} (08)."
    TABLES[f"model_{_name}"] = (_said, [*TABLES[_name][1]])

ANALYSIS = (*list(TABLES)[list(TABLES).index("answers") :],)
for _name in ANALYSIS:
    if all(column.name != "simulated" for column in TABLES[_name][1]):
        TABLES[_name][1].append(yes_no("simulated", "computed from simulated data"))


def columns(name: str) -> list[Column]:
    """The declared columns of a table. Raises KeyError for an unknown table."""
    return TABLES[name][1]
