"""Answers that must have a form, judged by others than us: the `re` module, the jsonschema package, the Lark parser."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import lark
import openai
import pytest

# Of each kind: 50 in a moment, 200 with `make soak`.
PROMPTS = 50
MANY_PROMPTS = 200
AT_A_TIME = 4

SUBJECTS = ["the sea", "a dog", "Monday", "winter", "an old car", "music", "Rome", "bread", "the moon", "chess"]

CHOICES = ["positive", "negative", "neutral", "can't say"]
PATTERN = r"[A-Z][a-z]{2,9}( [a-z]{2,9}){0,2}, (19|20)\d{2}\."
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "maxLength": 12},
        "stars": {"type": ["integer", "null"], "minimum": 1, "maximum": 50},
        "tags": {"type": "array", "items": {"enum": ["old", "new", 7]}, "minItems": 1, "maxItems": 2},
        "by": {"$ref": "#/$defs/author"},
    },
    "required": ["title", "stars", "tags"],
    "additionalProperties": False,
    "$defs": {
        "author": {
            "type": "object",
            "properties": {"name": {"type": "string", "pattern": "^[A-Z][a-z]+$", "maxLength": 9}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
GRAMMAR = r"""
start: sum
sum: product (("+" | "-") product)~0..2
product: item (("*" | "/") item)~0..1
item: NUMBER | NAME | "(" NUMBER "+" NAME ")"
NUMBER: /[1-9][0-9]{0,2}/
NAME: /[a-z]{1,5}/
"""


def is_choice(text):
    assert text in CHOICES


def matches(text):
    assert re.fullmatch(PATTERN, text, re.ASCII)


def follows_schema(text):
    jsonschema.validate(json.loads(text), SCHEMA)


def is_parsed(text):
    lark.Lark(GRAMMAR, parser="earley").parse(text)


KINDS = {
    "choice": ({"guided_choice": CHOICES}, is_choice),
    "regex": ({"guided_regex": PATTERN}, matches),
    "schema": ({"guided_json": SCHEMA}, follows_schema),
    "grammar": ({"guided_grammar": GRAMMAR}, is_parsed),
}


def ask(client, number, form):
    answer = client.completions.create(
        model="smollm2-135m",
        prompt=f"About {SUBJECTS[number % len(SUBJECTS)]} ({number}):",
        max_tokens=100,
        temperature=1,
        seed=number,
        extra_body=form,
    )
    return answer.choices[0]


def check_all(server, kind, count):
    """All that ended by themselves must be valid; says how many were cut off."""
    form, check = KINDS[kind]
    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="root", max_retries=0, timeout=110)
    with client, ThreadPoolExecutor(AT_A_TIME) as pool:
        choices = list(pool.map(lambda number: ask(client, number, form), range(count)))
    ended = [choice.text for choice in choices if choice.finish_reason == "stop"]
    for text in ended:
        check(text)
    print(f"{kind}: {len(ended)} of {count} ended and are valid, {len(set(ended))} different, {count - len(ended)} cut off")
    assert len(ended) >= 0.98 * count


@pytest.mark.parametrize("kind", KINDS)
def test_guided_answers_are_valid(server, kind):
    check_all(server, kind, PROMPTS)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_many_guided_answers_are_valid(server, kind):
    check_all(server, kind, MANY_PROMPTS)
