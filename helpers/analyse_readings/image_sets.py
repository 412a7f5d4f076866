"""The sets of images for a measure: all, one modality, one source beside the real images."""

from collections.abc import Iterator

import pandas as pd

OVERALL, STRATIFIED = "all", "stratified"


def clusters(shown: pd.DataFrame) -> pd.Series | None:
    """The prompt or patient of every image; None if every image has its own."""
    return shown["cluster"] if shown["cluster"].duplicated().any() else None


def per_reader(values: pd.DataFrame, truth: pd.Series, measure, **options) -> pd.DataFrame:
    """`measure(column, truth)` for every reader, stacked with a column reader."""
    return pd.concat(
        [measure(values[r], truth, **options).assign(reader=r) for r in values], ignore_index=True
    )


def by_source(scores: pd.DataFrame, shown: pd.DataFrame, measure) -> pd.DataFrame:
    """`measure(scores, truth, clusters)` over all images and, with several generators, over the
    images of each beside the real images of the same modalities; stacked with a column source.
    """
    groups, everything = clusters(shown), pd.Series(True, index=shown.index)
    parts, names = {OVERALL: everything}, sorted(shown["generator"].dropna().unique())
    for name in names if len(names) > 1 else []:
        parts[name] = beside_real(shown, shown["generator"].eq(name).fillna(False).astype(bool))
    frames = [
        measure(scores[inside], shown["truth"][inside], None if groups is None else groups[inside])
        for inside in parts.values()
    ]
    return pd.concat([frame.assign(source=n) for n, frame in zip(parts, frames)], ignore_index=True)


def beside_real(shown: pd.DataFrame, own: pd.Series) -> pd.Series:
    """The images `own` and the real images of the same modalities."""
    return own | (shown["truth"] == 0) & shown["modality"].isin(shown["modality"][own])


def by_stratum(values: pd.DataFrame, shown: pd.DataFrame, measure) -> pd.DataFrame:
    """`per_reader` over all images, over each modality, and stratified over modality."""
    return pd.concat(
        [
            per_reader(values.loc[p.index], p["truth"], measure, **options).assign(stratum=name)
            for name, p, options in strata(shown)
        ],
        ignore_index=True,
    )


def strata(shown: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, dict]]:
    """All images and, with several modalities, each modality and all images stratified: name,
    images, and the options `clusters` and `strata` of a measure.
    """
    whole = {"clusters": clusters(shown)}
    yield OVERALL, shown, whole
    names = sorted(shown["modality"].unique(), reverse=True)
    for name in names if len(names) > 1 else []:
        part = shown[shown["modality"] == name]
        yield name, part, whole if whole["clusters"] is None else {"clusters": part["cluster"]}
    if len(names) > 1:
        yield STRATIFIED, shown, whole | {"strata": shown["modality"]}


def image_groups(shown: pd.DataFrame) -> dict[str, pd.Series]:
    """Sets of images whose agreement is reported separately: all, by modality, by origin, by both
    (if they exist).
    """
    modalities = sorted(shown["modality"].unique(), reverse=True)
    origins = sorted(shown["origin"].unique())
    chosen = {OVERALL: pd.Series(True, index=shown.index)}
    chosen |= {modality: shown["modality"] == modality for modality in modalities}
    for origin in origins if len(origins) > 1 else []:
        chosen[origin] = shown["origin"] == origin
        for modality in modalities if len(modalities) > 1 else []:
            chosen[f"{modality} {origin}"] = chosen[modality] & chosen[origin]
    return {name: inside for name, inside in chosen.items() if inside.any()}
