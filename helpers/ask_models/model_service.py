"""The model's service: where it is, what it costs, and whether real images may be sent there."""

import pandas as pd

from helpers.rehearsal import model_api
from helpers.runner import runs
from helpers.services import connection, prices
from helpers.services.connection import ServiceError

NOT_FURTHER = {"model", "messages", "n", "stream", "response_format", "temperature"}


def of(run: runs.Run) -> connection.Connection:
    """The chat service of a run's parameters, with its price and its key.

    Raises ServiceError for parameters that do not fit together and for a missing key, PriceError
    for a model without a price.
    """
    settings = run.parameters
    extra = connection.extra_body(settings, NOT_FURTHER, "the study's own parameters set these")
    price = prices.find(
        settings.model, "", settings.price_input, settings.price_output, settings.price_image
    )
    base_url, key = connection.place(run, "model readers", model_api.ModelServer)
    return connection.Connection(settings, base_url, extra, price, key)


async def preflight(service: connection.Connection) -> str:
    """What the service says about the model; see connection.preflight."""
    return await connection.preflight(service, ("gpt", "vl", "vision"), "sees images")


def refuse_to_send(service: connection.Connection, set_run: runs.Run) -> str:
    """Whether the images of a reading set may go to this service, in a sentence.

    Raises ServiceError that names the source: real images leave this machine only if their licence
    allows it, the run names their source in `may_leave`, and `approval` says where the study's
    protocol and consent allow it.
    """
    settings, price = service.parameters, service.price
    # A gateway on loopback passes images on, for money.
    charged = price.by_tokens or price.image("")
    if service.loopback and (settings.provider == "rehearsal" or not charged):
        return "The model runs on this machine: no image leaves it."
    if not (set_run.folder / "sources.csv").exists():
        raise ServiceError(
            f"{set_run.name} does not say which licences its images have (sources.csv is missing):"
            " redo it, or use a model on this machine."
        )
    sources = set_run.read("sources.csv")
    for row in sources.itertuples():
        if not row.may_leave:
            licence = "no licence" if pd.isna(row.licence) else f"licence '{row.licence}'"
            raise ServiceError(
                f"Images of {row.run} have {licence}, which does not let them leave this machine:"
                " ask a model on this machine (provider local, an address on loopback, price_image"
                " 0) or, if the source allows it, write 'may leave' into the licence in its table."
            )
        if row.origin == "real" and row.run not in settings.may_leave:
            raise ServiceError(
                f"Real images of {row.run} would be sent to {service.base_url or 'the provider'}:"
                f" add {row.run} to may_leave if the study may do that."
            )
    real = sorted(sources.loc[sources["origin"] == "real", "run"].unique())
    if real and not settings.approval.strip():
        raise ServiceError(
            "approval is empty: name the section of the protocol and of the consent that lets real"
            f" images of {', '.join(real)} be sent to another machine."
        )
    return f"Images leave this machine. {settings.approval}" if real else "No real image is sent."
