"""The stand-in answers the real client as the published service does."""

import base64
import io
import time

import numpy as np
import openai
import pytest
from faulty_service import ImageServer
from PIL import Image

MODEL = "gpt-image-2-2026-04-21"


def client(server, **how):
    return openai.OpenAI(base_url=server.url, api_key="any", max_retries=0, **how)


def ask(server, prompt="chest X-ray, normal", **fields):
    fields = {"model": MODEL, "size": "1024x1024", "quality": "low", **fields}
    return client(server).images.generate(prompt=prompt, **fields)


def decoded(answer):
    return Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json)))


def test_an_image_with_usage_and_the_effective_fields():
    with ImageServer() as server:
        answer = ask(server, size="1536x1024", quality="medium")
    assert decoded(answer).size == (1536, 1024)
    assert (answer.size, answer.quality, answer.output_format, answer.background) == (
        "1536x1024",
        "medium",
        "png",
        "opaque",
    )
    assert (
        answer.usage.output_tokens == round(1756 * 1.5)
        and answer.usage.input_tokens_details.text_tokens > 0
    )
    assert answer.data[0].url is None and answer.data[0].revised_prompt is None
    assert server.billed_usd == pytest.approx(
        answer.usage.output_tokens * 30e-6 + answer.usage.input_tokens * 5e-6
    )


def test_several_images_in_one_answer_differ():
    with ImageServer() as server:
        answer = ask(server, n=2)
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(item.b64_json)))) for item in answer.data
    )
    assert (first != second).mean() > 0.5


@pytest.mark.parametrize(
    ("fields", "error", "code"),
    [
        ({"response_format": "b64_json"}, openai.BadRequestError, "unknown_parameter"),
        ({"model": "gpt-image-1"}, openai.NotFoundError, "model_not_found"),
        ({"model": "gpt-image-99"}, openai.NotFoundError, "model_not_found"),
        ({"size": "512x512"}, openai.BadRequestError, "invalid_value"),
        ({"size": "1000x1000"}, openai.BadRequestError, "invalid_value"),
        ({"prompt": "blood everywhere"}, openai.BadRequestError, "moderation_blocked"),
        ({"prompt": "x" * 32_001}, openai.BadRequestError, "string_above_max_length"),
        (
            {"model": "dall-e-2", "size": "512x512", "quality": "low"},
            openai.BadRequestError,
            "unknown_parameter",
        ),
    ],
)
def test_refused_as_the_service_refuses(fields, error, code):
    with ImageServer() as server, pytest.raises(error) as caught:
        ask(server, **fields)
    assert caught.value.code == code and server.billed_usd == 0 and caught.value.request_id


def test_dall_e_2_answers_by_url_unless_asked_for_base64():
    with ImageServer() as server:
        asked = {"model": "dall-e-2", "prompt": "chest CT", "size": "256x256"}
        assert client(server).images.generate(**asked).data[0].url.startswith("http://127.0.0.1")
        answer = client(server).images.generate(**asked, response_format="b64_json")
    assert decoded(answer).size == (256, 256) and answer.usage is None


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("throttle", openai.RateLimitError, "rate_limit_exceeded"),
        ("throttle_silent", openai.RateLimitError, "rate_limit_exceeded"),
        ("quota", openai.RateLimitError, "credit_balance_exhausted"),
        ("unauthorised", openai.AuthenticationError, "invalid_api_key"),
        ("forbidden", openai.PermissionDeniedError, None),
        ("server_error", openai.InternalServerError, None),
        ("detail", openai.InternalServerError, None),
        ("moderation", openai.BadRequestError, "moderation_blocked"),
        ("drop", openai.APIConnectionError, None),
        ("cut", openai.APIConnectionError, None),
    ],
)
def test_faults_that_the_client_sees_as_errors(kind, error, says):
    with ImageServer(script=[kind], sketch=True) as server:
        with pytest.raises(error) as caught:
            ask(server)
        assert says is None or caught.value.code == says
        if isinstance(caught.value, openai.RateLimitError):
            assert ("retry-after" in caught.value.response.headers) == (kind == "throttle")
        assert (server.billed_usd > 0) == (kind == "cut")
        assert ask(server).data


def test_faults_inside_a_successful_answer():
    with ImageServer(script=["empty", "wrong_size", "truncated"], sketch=True) as server:
        assert ask(server).data == []
        assert decoded(ask(server)).size == (512, 512)
        with pytest.raises((ValueError, OSError)):
            decoded(ask(server)).load()
    assert all(record["billed_usd"] > 0 for record in server.requests)


def test_models_have_their_shutdown_dates():
    with ImageServer() as server:
        listed = {model.id: model.shutdown_date for model in client(server).models.list()}
    assert (
        listed[MODEL] is None
        and listed["gpt-image-1.5"] == "2026-12-01"
        and "gpt-image-1" not in listed
    )


def test_only_so_many_requests_are_worked_on_at_once():
    import threading

    with ImageServer(latency_seconds=0.3, in_flight_limit=2, sketch=True) as server:
        codes = []

        def one():
            try:
                ask(server)
                codes.append(200)
            except openai.RateLimitError:
                codes.append(429)

        threads = [threading.Thread(target=one) for _ in range(5)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert sorted(codes) == [200, 200, 429, 429, 429] and server.most_working == 2


def test_what_the_prompt_says_is_drawn():
    with ImageServer() as server:
        left = np.asarray(
            decoded(
                ask(server, "chest X-ray with left pneumothorax", extra_body={"seed": 5})
            ).convert("L"),
            float,
        )
        none = np.asarray(
            decoded(ask(server, "chest X-ray with no finding", extra_body={"seed": 5})).convert(
                "L"
            ),
            float,
        )
        scan = np.asarray(
            decoded(ask(server, "axial chest CT, lung window", extra_body={"seed": 5})).convert(
                "L"
            ),
            float,
        )
    change = np.abs(left - none)
    assert change[:, 512:].mean() > 2 * change[:, :512].mean(), (
        "the patient's left is on the image's right"
    )
    assert np.abs(scan - none).mean() > 30


def test_slow_is_slow_and_the_key_is_checked():
    with ImageServer(latency_seconds=0.1, script=["slow"], sketch=True, key="right") as server:
        began = time.monotonic()
        openai.OpenAI(base_url=server.url, api_key="right", max_retries=0).images.generate(
            model=MODEL, prompt="p", size="1024x1024"
        )
        assert time.monotonic() - began >= 0.25
        with pytest.raises(openai.AuthenticationError):
            ask(server)
