"""The caches: found again by content, whole under concurrent writers, never stale."""

import multiprocessing

import numpy as np
import pandas as pd
import pytest
import torch
from small_training import picture, recipe

from helpers import images
from helpers.diffusion import families
from helpers.files import sha256
from helpers.finetune_diffusion import latents, tiny_model


@pytest.fixture
def cases(tmp_path) -> pd.DataFrame:
    rows = []
    for index in range(5):
        path = tmp_path / f"{index}.png"
        path.write_bytes(images.write_png(picture("no_finding", "", index)))
        rows.append(
            {
                "file": str(path),
                "sha256": sha256(path),
                "bits": 12,
                "caption": f"chest {index}",
            }
        )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_model.build(["chest X-ray"], recipe(size=32))


def encoded(frame, pipeline, cache):
    images_of = latents.Images(pipeline, 32, cache)
    images_of.encode(frame)
    return images_of.read(frame)


def test_cached_posteriors_are_the_vaes(cases, pipeline, tmp_path):
    cached = encoded(cases, pipeline, tmp_path / "cache")
    for row, (mean, deviation) in zip(cases.itertuples(), cached):
        with torch.no_grad():
            posterior = pipeline.vae.encode(latents.picture(row.file, 32, 12, 1)[None]).latent_dist
        torch.testing.assert_close(mean, posterior.mean[0])
        torch.testing.assert_close(deviation, posterior.std[0])


def test_entries_do_not_depend_on_what_else_is_missing(cases, pipeline, tmp_path):
    together = encoded(cases, pipeline, tmp_path / "one")
    encoded(cases.iloc[[1, 3]], pipeline, tmp_path / "two")
    assert torch.equal(encoded(cases, pipeline, tmp_path / "two"), together)


def test_nothing_is_encoded_twice_and_anything_changed_is(cases, pipeline, tmp_path, monkeypatch):
    calls = []
    encode = pipeline.vae.encode
    monkeypatch.setattr(pipeline.vae, "encode", lambda pixels: calls.append(1) or encode(pixels))
    encoded(cases, pipeline, tmp_path / "cache")
    encoded(cases, pipeline, tmp_path / "cache")
    assert len(calls) == 5
    encoded(cases.assign(sha256=["x", *cases.sha256[1:]]), pipeline, tmp_path / "cache")
    assert len(calls) == 6, "a changed image is encoded again"
    others = [tiny_model.build([], recipe(size=32, channels=n)) for n in (1, 3)]
    with torch.no_grad():
        others[0].vae.quant_conv.bias += 1
    entries = {
        latents.Images(other, size, tmp_path).entry(image)
        for image in "ab"
        for other in [pipeline, *others]
        for size in (32, 64)
    }
    assert len(entries) == 12


def test_a_damaged_entry_is_made_again(cases, pipeline, tmp_path):
    whole = encoded(cases, pipeline, tmp_path / "cache")
    for number, path in enumerate(sorted((tmp_path / "cache").rglob("*.npy"))):
        content = path.read_bytes()
        path.write_bytes(
            content[: len(content) // 2] if number % 2 else content[:-40] + b"\0" + content[-39:]
        )
    assert torch.equal(encoded(cases, pipeline, tmp_path / "cache"), whole)


def test_captions_are_cached_by_text_and_encoder(tmp_path):
    pipeline, texts = tiny_model.build([], recipe(size=32)), ["chest X-ray", "", "chest PA view"]
    first = latents.of_captions(texts, pipeline, 32, tmp_path)["text"]
    count = len(list(tmp_path.rglob("*.npy")))
    again = latents.of_captions(texts[::-1], pipeline, 64, tmp_path)["text"]
    assert torch.equal(again.flip(0), first) and len(list(tmp_path.rglob("*.npy"))) == count == 3
    with torch.no_grad():
        next(pipeline.text_encoder.parameters()).view(-1)[0] += 1
    latents.of_captions(texts, pipeline, 32, tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 6


def test_a_pipeline_may_lack_an_optional_tokenizer(tmp_path, monkeypatch):
    pipeline = tiny_model.build([], recipe(size=32))
    parts = {**pipeline.components, "tokenizer_2": None}
    monkeypatch.setattr(type(pipeline), "components", parts)
    assert len(latents.of_captions(["chest X-ray"], pipeline, 32, tmp_path)["text"]) == 1


def _write_many(cache, seed):
    rng = np.random.default_rng(seed)
    for index in rng.permutation(40):
        path = latents.entry(cache, number=int(index))
        found = latents.get(path)
        assert found is None or (found == index).all()
        latents.put(path, np.full(2000, index))


def test_concurrent_writers_leave_whole_entries(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path, seed)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for index in range(40):
        assert (latents.get(latents.entry(tmp_path, number=index)) == index).all()
    assert not list(tmp_path.rglob("*.part"))


def test_captions_that_would_be_cut_are_found(pipeline):
    long = "chest X-ray " * 30
    assert families.too_long(["chest X-ray", long], pipeline) == [long]
    assert latents.token_ids([long], pipeline.tokenizer).shape == (
        1,
        pipeline.tokenizer.model_max_length,
    )
