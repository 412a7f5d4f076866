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
        integer("images", "that enter"),
        integer("readers", "that enter"),
        text("reason", "why a number is missing"),
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
        "One row an image, the same for every source (01, 02, 04).",
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
            text("duplicate_group", "images that are copies of one another share it"),
            text("sex", "F or M", "F", "M"),
            text("age_band", "decade, e.g. 50-59; 90+ is one band"),
            integer("width", "pixels of the image in its own shape, without bars", required=True),
            integer("height", "pixels", required=True),
            integer("bits", "grey depth of the stored pixels (1 to 16)", required=True),
            text("licence", "of the image"),
            text("credit", "whom to name"),
            text("prompt_id", "stable id of the prompt; generated only"),
            text("made_from", "image_id of the real image that a generated one was made from"),
        ],
    ),
    "rejected": (
        "One row a file that 01 did not take.",
        [
            text(
                "file_hash",
                "keyed hash of the file's relative path; the names are in .keys/<study>/",
                required=True,
            ),
            text("kind", "file type as found"),
            text("reason", "why it was not taken", required=True),
        ],
    ),
    "imported": (
        "One row an image of 01: what the import did to it.",
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
        "Beside the YAML: what 02 asks an image API for.",
        [
            text("prompt_id", "stable id; when empty a hash of the prompt"),
            text("modality", "what the image is to be of", *MODALITIES, required=True),
            text("view", "LL is lateral", *VIEWS),
            ids("finding", "ids from helpers/findings.py, several joined by |", *FINDINGS),
            text("side", "of the finding, the patient's side", *SIDES),
            text("wording", "how helpers/findings.py words it", *WORDINGS),
            text("prompt", "the prompt in full; when empty it is worded from the columns before"),
            integer("count", "images asked for", required=True),
        ],
    ),
    "ledger": (
        "One line per request to the image API, written before and after it (02).",
        [
            text("request_id", "of this attempt, made here", required=True),
            text("image_id", "identity of the image asked for", required=True),
            text("prompt_id", "stable id of the prompt", required=True),
            text("prompt", "as sent"),
            text("model", "as asked for"),
            text("size", "WIDTHxHEIGHT as sent; missing where none was"),
            text("quality", "as sent; missing where none was"),
            integer("attempt", "1 for the first try of this image"),
            text("requested_utc", "ISO 8601", required=True),
            number("seconds", "from request to answer"),
            integer("input_tokens", "as the service counted"),
            integer("output_tokens", "as the service counted"),
            number(
                "cost_usd",
                "from the service's usage and the price table, USD; while sent or unknown, the"
                " amount set aside",
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
        "One row a logged step of the fine-tuning (03).",
        [
            integer("step", "optimiser steps done", required=True),
            number("epoch", "passes over the training cases"),
            number("loss", "mean squared error of the prediction, mean since the last row"),
            number("validation_loss", "same on the validation split, fixed noise and timesteps"),
            number("learning_rate", "at this step"),
            number("images_per_second", "training throughput since the last row"),
        ],
    ),
    "samples": (
        "How each sampled image was drawn (04).",
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
            "Samples that are no images: black (a safety checker's), not a number, one grey value"
            " (04)."
        ),
        [
            text("image_id", "that it would have had", required=True),
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
            integer("reference_images", "real images compared with"),
            number("estimate", "value", required=True),
            number("low", "lower end of the 95 % interval"),
            number("high", "upper end of the 95 % interval"),
            number(
                "baseline", "the same between two halves of the real images, with as many of them"
            ),
            number("baseline_low", "lower end of the 95 % interval"),
            number("baseline_high", "upper end of the 95 % interval"),
            text("extractor", "feature extractor and resize rule"),
        ],
    ),
    "nearest": (
        (
            "The nearest real case of every generated image (05): of the training cases for a"
            " generator trained here, else of all."
        ),
        [
            text("image_id", "the generated image", required=True),
            text("nearest_image_id", "the real case"),
            number(
                "distance",
                "1 - correlation of local structure after alignment; smaller is more alike",
            ),
            integer("hash_distance", "bits of 64 in which the nearest perceptual hashes differ"),
            number(
                "feature_distance",
                "to the nearest of these cases among the extractor's features, each scaled to its"
                " spread",
            ),
            yes_no("trained_here", "by a generator of this study; else only a comparison"),
            yes_no("near", "nearer than the calibrated threshold"),
            yes_no("copy", "near, and of a generator trained here", required=True),
            yes_no("release", "false for copies", required=True),
        ],
    ),
    "leakage": (
        "What gives a source away without looking at the anatomy (05).",
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
            number("p", "permutation, two-sided"),
        ],
    ),
    "sampling_prompts": (
        (
            "What stage 04 draws, beside its YAML: the prompt is written from the study's own"
            " words, as the training captions are."
        ),
        [
            text("prompt_id", "unique", required=True),
            text("modality", "what is drawn", *MODALITIES, required=True),
            text("view", "LL is lateral", *VIEWS),
            ids("finding", "ids of the findings, with | between several", *FINDINGS),
            text("side", "of the finding", *SIDES),
            text("wording", "how the prompt is written; empty: as captions are", *WORDINGS),
            text("prompt", "words of its own, in place of what the columns before would give"),
            integer("count", "images for each guidance and number of steps", required=True),
        ],
    ),
    "draw": (
        (
            "What is read, beside the YAML of 06: one row says how many images to draw at random"
            " from where."
        ),
        [
            text("run", "run of 01, 02 or 04", required=True),
            text("origin", "which images of it", *ORIGINS, required=True),
            text("generator", "as in images.csv; empty: any"),
            text("modality", "what the images are of", *MODALITIES, required=True),
            text(
                "finding",
                "an id; empty: any; match (real images only): finding and view of the generated"
                " ones, one for one",
                "match",
                *FINDINGS,
            ),
            integer("count", "how many", required=True),
            yes_no(
                "training", "shown to get used to the page, or to learn; not scored", required=True
            ),
            text("group", "which blocks of blocks.csv show it; empty: main"),
        ],
    ),
    "questions": (
        "What readers are asked, beside the YAML of 06: one row per question.",
        [
            text(
                "id", "small letters, digits and _; label is the published question", required=True
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
                "joined by |: value=text or the text alone; of a scale its steps from low to high;"
                " of findings ids (empty: all)",
            ),
            yes_no("required", "no answer without it"),
            text("shown_when", "question=value of an earlier question; empty: always"),
        ],
    ),
    "blocks": (
        "What is shown one after another, beside the YAML of 06: one row per block.",
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
            yes_no("unaware", "no text up to its end may name generation: 06 refuses it"),
            yes_no("tell_truth", "after each answer, for learning; its images are never scored"),
            yes_no("lock", "its answers are final once the reader goes on"),
            number("after_days", "days from the end of the block before (washout)"),
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
        "All that the reading server is told (06).",
        [
            text("blind_id", "opaque id of a presentation", required=True),
            text("path", "PNG file, relative to reading_set/", required=True),
            text("checksum", "keyed (HMAC-SHA256), so that repeats do not show", required=True),
            text("modality", "what the image is of", *MODALITIES, required=True),
            yes_no("training", "shown before the read, not scored", required=True),
            integer(
                "part",
                "0 training, then 1, 2, 3: a reader's order shuffles within parts only, so that"
                " repeats keep their distance",
            ),
            text("block", "id of the block that shows it", required=True),
        ],
    ),
    "key": (
        "The sealed truth (06); readable only after unsealing in 08.",
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
        "The record of the read, append-only, hash-chained per reader (07).",
        [
            text("reader_id", "opaque id", required=True),
            integer("sequence", "1, 2, … per reader", required=True),
            text("event", "what happened", required=True),
            text("blind_id", "of the image it is about"),
            text("payload", "JSON"),
            text("browser_utc", "ISO 8601, the browser's clock"),
            text("server_utc", "ISO 8601, the server's clock", required=True),
            text("hash", "SHA-256 over the previous hash and this row", required=True),
        ],
    ),
    "readings": (
        "The answer that stands for every image and reader, in blocks that ask for a label (07).",
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
            number("seconds", "on screen until answered, pauses out"),
            integer("changes", "how often the answer was changed", required=True),
            yes_no("poor_quality", "ticked: image quality too poor to judge"),
            text("block", "id of the block that asked"),
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
        "One row a reader (07).",
        [
            text("reader_id", "opaque id", required=True),
            number("years", "of experience"),
            text("specialty", "as registered"),
            yes_no("prior_ai", "prior knowledge of AI and generative models"),
            yes_no("display_steps_seen", "found the darkest and the brightest step of the pattern"),
            text("room_light", "as the reader said", "dark", "dimmed", "bright"),
            text("device", "as said", "diagnostic", "desktop", "laptop", "tablet", "phone"),
            text("consent_utc", "ISO 8601"),
            text("locked_utc", "ISO 8601; missing while the read is open"),
            text("withdrawn_utc", "ISO 8601; consent withdrawn: no readings, no particulars"),
            yes_no("simulated", "a simulated reader", required=True),
        ],
    ),
    "per_image": (
        (
            "One row an image of the read: the truth, the votes, and how near it is to a training"
            " case (08)."
        ),
        [
            text("image_id", "as in images.csv of its source", required=True),
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
            number("distance", "to it, as in nearest.csv"),
            yes_no("copy", "nearer than the calibrated threshold"),
        ],
    ),
    "answers": (
        (
            "One row an answer that counts, in the clear: training cases and readers who withdrew"
            " are out (08)."
        ),
        [
            text("image_id", "as in images.csv of its source", required=True),
            text("reader", "R1, R2, …", required=True),
            integer("presentation", "1 first, 2 the hidden repeat", required=True),
            integer("position", "in this reader's order", required=True),
            text("origin", "the truth", *ORIGINS, required=True),
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("label", "the answer", *LABELS, required=True),
            integer("confidence", "1 (a guess) upwards"),
            number("score", "from sure real (negative) over uncertain (0) to sure fake"),
            text("description", "the lung condition in the reader's words"),
            text("findings", "ticked ids joined by |"),
            text("side", "ticked side", *SIDES),
            text("cues", "joined by |"),
            number("seconds", "on screen until answered, pauses out"),
            integer("changes", "how often the answer was changed"),
        ],
    ),
    "reader_summary": (
        "One row a reader who has not withdrawn (08).",
        [
            text("reader", "R1, R2, …", required=True),
            number("years", "of experience"),
            text("specialty", "as registered"),
            yes_no("prior_ai", "prior knowledge of AI and generative models"),
            yes_no("simulated", "a simulated reader"),
            integer("answered", "images", required=True),
            integer("missing", "images", required=True),
            number("median_seconds", "on screen"),
            *(integer(f"labelled_{label}", "images", required=True) for label in LABELS),
            yes_no("locked", "said that the read is complete"),
            integer("poor_quality", "images whose quality the reader found too poor to judge"),
            yes_no("display_steps_seen", "found both steps of the display check"),
            text("room_light", "as the reader said"),
            text("device", "as the reader said"),
        ],
    ),
    "agreement": (
        "Agreement between readers over groups of images (08).",
        [text("group", "of images", required=True), *_coefficient()],
    ),
    "agreement_pairs": (
        "Agreement of every pair of readers over all images (08).",
        [
            text("reader_a", "one", required=True),
            text("reader_b", "the other", required=True),
            *_coefficient(),
        ],
    ),
    "agreement_weighted": (
        "Agreement with the labels as an order real, uncertain, fake (08).",
        [
            text("weights", "of all but krippendorff, which is ordinal", required=True),
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
                "sensitivity, specificity, accuracy or label of kind; dprime and criterion at the"
                " thresholds fake | rest and real | rest, dprime ordinal",
                required=True,
            ),
            *_estimate(),
            integer("count", "images counted"),
            integer("total", "of these"),
            integer("left_out", "uncertain answers left out"),
            integer("clusters", "different prompts and patients among them"),
            number("chance", "the same for one who gives the labels as often, but to any image"),
            text("reason", "why a number is missing"),
        ],
    ),
    "areas": (
        "Area under the ROC curve of every reader, DeLong (08).",
        [
            text("reader", "R1, R2, …", required=True),
            text("stratum", STRATUM, required=True),
            *_estimate(),
            number("se", "standard error"),
            number("df", "degrees of freedom"),
            number("statistic", "against 0.5"),
            number("p", "two-sided"),
            integer("images", "with a score"),
            integer("dropped", "without a score"),
            text("reason", "why a number is missing"),
        ],
    ),
    "roc": (
        "ROC curves, every threshold (08).",
        [
            text("reader", "R1, R2, …", required=True),
            number("threshold", "scores at least this high count as fake"),
            number("false_alarms", "share of real images"),
            number("hits", "share of generated images"),
        ],
    ),
    "subgroups": (
        "Shares of the labels within groups, over these readers (08).",
        [
            text("by", "what makes the group", required=True),
            text("group", "which one", required=True),
            text("truth", "origin of the images", *ORIGINS, required=True),
            text("measure", "called real, called fake, uncertain", required=True),
            *_estimate(),
            integer("count", "answers"),
            integer("answers", "of these"),
            integer("images", "different ones"),
            integer("clusters", "different prompts and patients"),
            integer("readers", "who gave these answers"),
            text("reason", "why an interval is missing"),
        ],
    ),
    "findings_counted": (
        "Findings that readers gave, ticked or in words (08).",
        [
            text("modality", "what the image is of", *MODALITIES, required=True),
            text("origin", "the truth", *ORIGINS, required=True),
            text("finding", "id", required=True),
            text("name", "for people"),
            integer("answers", "with this finding", required=True),
            integer("images", "different ones", required=True),
            integer("ticked", "answers where it was ticked"),
            integer("in_text", "answers where the words say it"),
            integer("of_answers", "all answers of this modality and origin", required=True),
            number("share", "of the answers"),
        ],
    ),
    "findings_agreement": (
        "Agreement on whether a finding is there (08).",
        [
            text("finding", "id", required=True),
            text("name", "for people"),
            integer("answers", "with this finding", required=True),
            integer("images", "different ones", required=True),
            integer("alike", "images on which all their readers agree"),
            integer("of_images", "with several answers"),
            number("share", "alike of them"),
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
            "How often 95 % intervals hold the true coefficient at the study's own size, by"
            " simulation (08)."
        ),
        [
            text("coefficient", "name", required=True),
            number("truth", "in the simulation"),
            number("coverage", "share of the simulated studies with an interval"),
            number("undefined", "share of the simulated studies without one"),
            integer("images", "per study", required=True),
            integer("studies", "simulated", required=True),
        ],
    ),
    "checklist": (
        "Items of GRRAS, STARD and CLAIM (08).",
        [
            text("guideline", "which", required=True),
            text("item", "number"),
            text("topic", "what it asks for", required=True),
            text(
                "status", "filled from the study's files, or open", "filled", "open", required=True
            ),
            text("text", "where or what"),
        ],
    ),
    "comparison": (
        "The published numbers beside this study's (09).",
        [
            text("what", "the number", required=True),
            text("published", "as printed, or not published", required=True),
            number("published_share", "of the images"),
            number("published_low", "lower end of the Wilson interval, 95 %"),
            number("published_high", "upper end of the Wilson interval, 95 %"),
            text("here", "this study's", required=True),
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
            yes_no("exact", "all tables were looked at", required=True),
            integer("tables", "looked at", required=True),
            integer("undefined", "tables where the coefficient has no value", required=True),
        ],
    ),
}

ANALYSIS = (*list(TABLES)[list(TABLES).index("answers") :],)
for _name in ANALYSIS:
    if all(column.name != "simulated" for column in TABLES[_name][1]):
        TABLES[_name][1].append(yes_no("simulated", "rests on something simulated"))


def columns(name: str) -> list[Column]:
    """The declared columns of a table. Raises KeyError for an unknown table."""
    return TABLES[name][1]
