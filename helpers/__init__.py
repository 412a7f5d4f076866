"""The work behind the notebooks. A notebook tells the story; its code is here.

A folder with a notebook's name holds the code of that notebook alone. Code that several stages
share is beside these folders. In the order in which a newcomer asks:

    How is a study run?
    study                 make study, status, verify, new: the only module that knows both the
                          runner and the stages
    runner/               planning (the runs and their states), side_by_side (which run when),
                          execution (papermill), runs (run and manifest), run_folder (its files),
                          freshness (stale or not), parameters (the parameters cell is the schema),
                          folders (where files and secrets are), workers (where tasks run: here
                          or, with CLUSTER=, on a cluster), progress, status, new_study
    What is on disk?
    table_columns         the columns of every table: images.csv, readings.csv, ...
    plurals               1 image, 2 images
    files                 atomic writes, hashes, and the only clock (utc_now)
    tables                checked reading and atomic writing; tables that people fill in
    findings              the only list of findings and sides; captions and prompts from them
    protocol              what is shown and asked (protocol_tables: blocks.csv and questions.csv)
    images, formats/      images as the study keeps them, standardised; DICOM, PNG, NIfTI, windows
    loopback              whether an address is on this machine
    licences              the rule for what leaves this machine, is shown or is published
    burned_in_text        finds and masks text in the pixels (text_detection: where words may be;
                          letter_shapes: single letters)
    figures               the colours ("fake" has one), the theme, parts of several figures

    What does each stage do?
    prepare_cases/        01  import, table layouts, de-identification, duplicates, splits
    generate_openai/      02  the image service, requests, answers, batches, shapes, provenance
    finetune_diffusion/   03  training loop, latents, checkpoints, dry run
    sample_diffusion/     04  drawing, the sampling run, whether images show what captions say
    audit/                05  fidelity, memorised copies, signs that give the source away
    assemble_reading_set/ 06  the random draw, blinding, the seal
    reading/              07  the record, the server, the page (static/)
    ask_models/           07  a model as a reader: its requests, its replies, its record
    analyse_readings/  08 09  answers to results, figures, report, release; templates/ has texts
    poster/               10  the poster, and the page that a phone opens from it (static/)
    rehearsal/                everything simulated: phantoms, stand-in services, readers

    What do stages share?
    services/             shared by paid services: connection, sending, ledger, budget, prices,
                          retry policy, keys (02, 07)
    diffusion/            base models and the tiny model's family (03, 04)
    statistics/           agreement (its coefficients: chance_corrected), accuracy, roc_areas,
                          multireader, comparisons, design: arrays and frames (08)

What imports what
- Notebooks import helpers, never the other way round. The runner imports no stage. A
  stage imports what is shared and no other stage, except: finetune_diffusion -> sample_diffusion
  (grids), audit -> assemble_reading_set (what may be drawn, how it is framed), ask_models ->
  reading's record and the seal's openings, analyse_readings -> reading's export, the blinding and
  the seal, poster -> analyse_readings (its sentences, figures and what may be released) and the
  seal (changes of 09's settings), and rehearsal where a parameter asks.
- No two packages import each other; no module only re-exports names.
- torch and diffusers: diffusion/, finetune_diffusion/, sample_diffusion/, audit/features.
  openai: services/, generate_openai/. anywidget: reading/widget. SQLAlchemy: reading/,
  ask_models/recording. dask: runner/cluster, runner/execution.
  The reading page and the analysis start without torch.
- The server for readers (reading/server and its imports) imports neither the seal nor the draw nor
  pandas, so it cannot open the key.
- Everything that rehearsal makes is marked `simulated`: in the manifest of its run and of every
  run that reads it, in the tables of images, readers and results, in figures and in the report.
- A new source of images is one notebook and one helper that writes images.csv; a new parameter is
  one line of a parameters cell and the line that uses it; a new figure of the report is a
  function of report_figures, its line in publishing.draw, its title and note in
  templates/figures.md and its place in a template; a new model family is an entry of
  diffusion/families.
"""

import logging
import os

# Set before diffusers, transformers, peft or accelerate are imported: they advertise torchvision,
# which is not needed, at import.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
# Where bitsandbytes is installed, diffusers imports it, and on a CPU it asks for a package that is
# not needed.
logging.getLogger("bitsandbytes.backends.cpu").setLevel(logging.ERROR)
