"""The work behind the notebooks. A notebook tells the story; what it needs is here.

A folder with a notebook's name holds what that notebook alone needs; at the top stands what several
share:

    study, execution, freshness   run a study: YAML -> papermill -> run folder; is a run still what
    its settings ask for runs, parameters, places      the run folder and its manifest; the
    parameters cell as schema; where things lie table_columns                 the columns of every
    table on disk (readings.csv, images.csv, ...) tables                        reading and writing
    them, checked, atomically findings                      the one list of findings and sides;
    words <-> findings; captions and prompts images, formats/              images as the study keeps
    them, standardised; windowing (the window rule), DICOM, PNG and others, NIfTI as they come
    figures                       colours ("fake" has one), theme, the published figures

    cases            + prepare_cases/       01  import, metadata layouts, de-identification,
    burned-in text, duplicates, splits openai_images    + generate_openai/     02  requests;
    prompts, prices, ledger, retry policy, batches finetune         + finetune_diffusion/  03  the
    training loop; recipe (learning rate, loss weights), base and tiny models, latents, checkpoints
    sampling         + sample_diffusion/    04  checkpoint + prompts + seeds -> images audit/
    05  fidelity, memorised copies, what gives the source away blinding, seal +
    assemble_reading_set/  06  the random draw; one path for every image, opaque names; the sealed
    key reading/                                07  store (the record), page and static/ (what
    readers see), server agreement, accuracy                     08  statistics; agreement_design
    (planning, bounds), multireader (many readers' areas) analyse_readings/                    08 09
    from answers to results, sentences, report and release; the published study speed/
    90  ours beside plain baselines rehearsal/                                  everything
    simulated: phantoms, stand-in image API, readers

What imports what
- Notebooks import helpers, never the other way round.
- torch and diffusers: finetune, finetune_diffusion/, sampling, sample_diffusion/, audit/features,
  speed/. openai: openai_images. anywidget: reading/page.
  SQLAlchemy: reading/. The reading page and the analysis start without torch.
- What faces the readers (reading/server and what it imports) imports neither blinding, seal nor
  pandas: it cannot open the key.
- rehearsal is imported only where a parameter asks for it, and what it makes is marked `simulated`.
- A new source of images is one notebook and one helper that writes images.csv; a new parameter is
  one line of a parameters cell.
"""

import os

# Before anything imports diffusers, transformers, peft or accelerate: they advertise torchvision,
# which is not needed, at import.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
