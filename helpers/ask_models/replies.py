"""The JSON schema of a reply from the questions of a block, and checked answers from a reply."""

import json
import re

from helpers import protocol
from helpers.services import secrets
from helpers.services.connection import Unusable, nothing_in

DECLINED = re.compile(
    r"\b(i(?:'|’)?m (?:very )?sorry|i (?:can ?not|can(?:'|’)t|am (?:not able|unable)|won(?:'|’)t)"
    r"|cannot (?:assist|help|provide)|as an ai)\b",
    re.IGNORECASE,
)


def schema(questions: list[protocol.Question]) -> dict:
    """The JSON schema of a complete answer, in the strict form: every field is required, and one
    that may stay empty can be null.
    """
    return {
        "type": "object",
        "properties": {question.id: _field(question) for question in questions},
        "required": [question.id for question in questions],
        "additionalProperties": False,
    }


def _field(question: protocol.Question) -> dict:
    values = [value for value, _ in question.options]
    if question.kind in protocol.MANY:
        field = {"type": "array", "items": {"type": "string", "enum": values}}
        return field | {"description": question.text}
    kind = {"scale": "integer", "number": "number", "yes/no": "boolean"}.get(
        question.kind, "string"
    )
    optional = bool(question.shown_when) or not question.required
    field = {"type": [kind, "null"] if optional else kind, "description": question.text}
    if values:
        allowed = [int(value) if kind == "integer" else value for value in values]
        field["enum"] = [*allowed, None] if optional else allowed
    return field


def usage(content: bytes) -> dict:
    """The tokens that the service counted; {} if it gives no readable count."""
    try:
        counted = json.loads(content).get("usage")
    except (ValueError, AttributeError, RecursionError):
        return {}
    return counted if isinstance(counted, dict) else {}


def read(content: bytes) -> tuple[str, str]:
    """The text of a chat completion, and the model that the service names. Raises Unusable."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise Unusable("the answer is not JSON") from None
    if not isinstance(body, dict):
        raise Unusable("the answer is not a JSON object")
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise nothing_in(body, "no choices")
    ended, text = choice.get("finish_reason"), message.get("content")
    if isinstance(text, list):  # a list of parts, as some servers send it
        text = "".join(str(part.get("text", "")) for part in text if isinstance(part, dict))
    if message.get("refusal") or ended == "content_filter":
        said = message.get("refusal") or "content_filter"
        raise Unusable(f"refused: {_short(said)}", "refused")
    if ended == "length":
        raise Unusable("cut off: it was longer than longest_answer")
    if not isinstance(text, str) or not text.strip():
        raise Unusable("empty", "empty")
    return text, str(body.get("model") or "")


def answers(text: str, questions: list[protocol.Question]) -> dict:
    """The checked answers in a reply's text, one per question that is shown and answered.

    Fields that the study does not ask for are dropped, as for the page. Raises Unusable.
    """
    inside = text[text.find("{") : text.rfind("}") + 1]  # local servers put ``` around it
    try:
        found = json.loads(inside)
    except (ValueError, RecursionError):
        declined = DECLINED.search(text)
        raise Unusable(
            f"{'refused' if declined else 'no JSON object'}: {_short(text)}",
            "refused" if declined else "unusable",
        ) from None
    given: dict = {}
    for question in questions:
        value = _plain(found.get(question.id), question)
        if question.is_shown(given) and not protocol.empty(value):
            given[question.id] = value
    if wrong := protocol.refusal(questions, given):
        raise Unusable(f"not an answer to the questions: {wrong}")
    return given


def _plain(value, question: protocol.Question):
    if isinstance(value, str):
        # Control characters would not be in an answer from the page either.
        value = "".join(c if c.isprintable() or c in "\n\t" else " " for c in value).strip()
        return value[: protocol.LONGEST_TEXT] if question.kind == "text" else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _short(text) -> str:
    return secrets.clean(" ".join(str(text).split()))[:200]
