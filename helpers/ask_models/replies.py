"""The JSON schema of a reply from the questions of a block, and checked answers from a reply."""

import json
import re

from helpers import protocol
from helpers.services import connection, secrets
from helpers.services.connection import Unusable, nothing_in

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)
DECLINED = re.compile(
    r"\b(i(?:'|’)?m (?:very )?sorry|i (?:can ?not|can(?:'|’)t|won(?:'|’)t)"
    r"|i(?:(?:'|’)| a)m (?:not able|unable)"
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


def parse(content: bytes):
    """The JSON value of an answer, None if it has none; the pieces of an event stream are put
    together.
    """
    try:
        events = connection.events(content)
        return _joined(connection.decoded(content, events), events)
    except UNREADABLE:
        return None


def usage(body) -> dict:
    """The tokens that the service counted; {} if it gives no readable count."""
    counted = body.get("usage") if isinstance(body, dict) else None
    return counted if isinstance(counted, dict) else {}


def _joined(body, events: list[dict]):
    choices = [event["choices"][0] for event in events if event.get("choices")]
    deltas = [choice.get("delta") or {} for choice in choices]
    message = {
        key: "".join(delta.get(key) or "" for delta in deltas) for key in ("content", "refusal")
    }
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    told = {"message": message, "finish_reason": ends[-1] if ends else None}
    return body | ({"choices": [told]} if choices else {})


def read(body) -> tuple[str, str]:
    """The text of a parsed chat completion, and the model that the service names. Raises
    Unusable.
    """
    if not isinstance(body, dict):
        raise Unusable("the answer is not a JSON object")
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise nothing_in(body, "no choices")
    ended, text = choice.get("finish_reason"), message.get("content")
    if isinstance(text, list):  # a list of parts, as some servers send it
        texts = [part.get("text", "") if isinstance(part, dict) else part for part in text]
        text = "".join(map(str, texts))
    if message.get("refusal") or ended == "content_filter":
        said = message.get("refusal") or "content_filter"
        raise Unusable(f"refused: {_short(said)}", "refused")
    if ended == "length":
        raise Unusable("cut off: it was longer than longest_answer")
    if not isinstance(text, str) or not text.strip():
        raise Unusable("empty", "empty")
    return text, _short(body.get("model") or "")


def answers(text: str, questions: list[protocol.Question]) -> dict:
    """The checked answers in a reply's text, one per question that is shown and answered.

    Fields that the study does not ask for are dropped, as for the page. Raises Unusable.
    """
    objects = _objects(text)
    if not objects:
        declined = DECLINED.search(text)
        raise Unusable(
            f"{'refused' if declined else 'no JSON object'}: {_short(text)}",
            "refused" if declined else "unusable",
        )
    # The final answer may come after a draft, or among other objects.
    ids = {question.id for question in questions}
    found = max(reversed(objects), key=lambda one: len(ids & one.keys()))
    given: dict = {}
    for question in questions:
        value = _plain(found.get(question.id), question)
        if question.is_shown(given) and not protocol.empty(value):
            given[question.id] = value
    if wrong := protocol.refusal(questions, given):
        raise Unusable(f"not an answer to the questions: {wrong}")
    return given


def _objects(text: str) -> list[dict]:
    """The JSON objects in a text, which local models surround with ``` or with their thoughts."""
    found, place, decoder = [], text.find("{"), json.JSONDecoder()
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
            found.append(value)
        except ValueError:
            end = place + 1
        except RecursionError:
            break
        place = text.find("{", end)
    return found


def _plain(value, question: protocol.Question):
    if isinstance(value, list):
        return [_plain(one, question) for one in value]
    if isinstance(value, str):
        # Control characters would not be in an answer from the page either.
        value = "".join(c if c.isprintable() or c in "\n\t" else " " for c in value).strip()
        if question.kind == "text":
            return value[: protocol.LONGEST_TEXT]
        # Without structured output a model may write Real where the study offers real.
        names = {name.casefold(): name for name, _ in question.options}
        texts = {text.casefold(): name for name, text in question.options}
        exact = value in names.values()
        return value if exact else (texts | names).get(value.casefold(), value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _short(text) -> str:
    printable = "".join(c if c.isprintable() else " " for c in str(text))
    return secrets.clean(" ".join(printable.split()))[:200]
