"""Writes what pydantic and FastAPI themselves say about values and bodies, for the tests to replay.

    pip install 'pydantic==2.12.*' 'fastapi==0.135.*' httpx
    python record_verdicts.py

- pydantic-values.jsonl: {type, value, ok} or {type, value, problems: [{type, loc, msg, ctx?}]}, in pydantic's lax mode
- fastapi-bodies.jsonl: {content_type, body, status, detail}, a JSON body behind a route with one model
"""

import json
import math
from typing import Annotated, Any, Optional

from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

TYPES = {
    "bool": bool,
    "int": int,
    "int from -1": Annotated[int, Field(ge=-1)],
    "float": float,
    "float 0 to 1": Annotated[float, Field(ge=0.0, le=1.0)],
    "float 0 to 2": Annotated[float, Field(ge=0.0, le=2.0)],
    "float above 0 to 1": Annotated[float, Field(gt=0.0, le=1.0)],
    "str": str,
    "list of str": list[str],
    "dict": dict[str, Any],
}

NUMBERS = [
    0, 1, -1, -2, 2, 3, 7, 128, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1,
    0.0, -0.0, 1.0, 2.0, -1.0, -2.0, 0.5, 1.5, -0.5, 0.1, 1e-9, -1e-9, 1.0000001, 2.0000001, 1e3, 1e15, 1e16, 5e-324,
    1e18, 9.2e18, 9.3e18, -9.3e18, 1e300,
]  # fmt: skip
WORDS = [
    "", " ", "x", "p", "true", "True", "TRUE", "tRuE", "false", "False", "FALSE", "t", "T", "f", "F", "y", "Y", "n",
    "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", " true", "true ", "none", "null",
    "None", "nan", "NaN", "NAN", "inf", "Inf", "-inf", "+inf", "infinity", "-Infinity",
]  # fmt: skip
DIGITS = [
    "0", "1", "-1", "-2", "7", "+7", "--7", "+-7", " 7", "7 ", " 7 ", "\t7\n", "\u00a07", "7\u2003", "007", "-0", "+0",
    "00", "0x10", "0b1", "0o7", "1_000", "_1", "1_", "1__0", "1 0", "1,000", "7.0", "7.00", "7.", ".7", ".0", "-7.0",
    "+7.0", "7.5", "7.05", "1_0.0", "7.0_0", "0.5", "-0.5", "1e0", "1e2", "1E2", "1e-2", "1.5e3", "1e400", "e5", "1e",
    "0.2", "1.0", "2.0", "2.1", "1_0.5", "0.5f", "0.5.5", "\u0667", "\u00bd", "\u221e", "9223372036854775807",
    "7.0 ", " 7.0", "-", "+", ".", "1.", "-1.", "1\u0000", "0007.0", "- 7", "9007199254740993", "_", "-_1",
    "1_.5", "1._5", "1_e5", "1e_5", "1e1_0", "+1_0", " 1_0 ",
]  # fmt: skip
OTHERS = [
    True, False, None, [], {}, ["a"], [""], [1], ["a", 1], [None], [True, "b", 2.5], [["a"]], [{}], ["a", "b", "c"],
    {"a": 1}, {"a": None}, {"": {}}, {"type": "object", "properties": {"x": {"type": "string"}}}, [[], {}, "x", None],
]  # fmt: skip
BOUNDED = NUMBERS + OTHERS[:5] + ["nan", "inf", "-inf", "0.5", "1", "1.0", " 1 ", "2.1", "-1", "-2", "7", "x", ""]
TEXTS = OTHERS + [0, 1.5, "", " ", "x", "a\u0000b", "\u00e9"]
VALUES = {
    "bool": NUMBERS + WORDS + OTHERS + ["0", "1", "-1", "2", "00", "01", "1.0", "0.0", " 1", "+1", "\u0661"],
    "int": NUMBERS + DIGITS + OTHERS + ["", " ", "x", "true", "nan", "inf"],
    "int from -1": BOUNDED,
    "float": NUMBERS + WORDS[-15:] + DIGITS + OTHERS + ["", " ", "x", "true", "on"],
    "float 0 to 1": BOUNDED,
    "float 0 to 2": BOUNDED,
    "float above 0 to 1": BOUNDED,
    "str": TEXTS,
    "list of str": TEXTS,
    "dict": TEXTS,
}


def compact(row):
    return json.dumps(row, separators=(",", ":"))


def verdict(adapter, value):
    try:
        read = adapter.validate_python(value)
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            kept = {key: problem[key] for key in ("type", "loc", "msg", "ctx") if key in problem}
            problems.append(kept)
        return {"problems": problems}
    # JSON has no name for these.
    if isinstance(read, float) and not math.isfinite(read):
        return {"ok": str(read)}
    return {"ok": read}


class CompletionRequest(BaseModel):
    """The public server's request, by its documented fields."""

    prompt: str
    max_new_tokens: int
    temperature: float = Field(..., ge=0.0, le=1.0)
    stop_sequences: Optional[list[str]] = None
    return_token_log_probs: Optional[bool] = False
    presence_penalty: Optional[float] = Field(default=None, ge=0.0, le=2.0)
    frequency_penalty: Optional[float] = Field(default=None, ge=0.0, le=2.0)
    top_k: Optional[int] = Field(default=None, ge=-1)
    top_p: Optional[float] = Field(default=None, gt=0.0, le=1.0)
    include_stop_str_in_output: Optional[bool] = False
    guided_json: Optional[dict[str, Any]] = None
    guided_regex: Optional[str] = None
    guided_choice: Optional[list[str]] = None
    guided_grammar: Optional[str] = None
    skip_special_tokens: Optional[bool] = True


GOOD = '{"prompt": "p", "max_new_tokens": 5, "temperature": 0.2}'
CONTENT_TYPES = [
    None, "", "application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;",
    " application/json ", "application/vnd.api+json", "application/problem+json; a=b", "application/jsonx",
    "application/x-json", "text/json", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream",
    "json", "application/", "+json", "application/+json", "multipart/form-data; boundary=x",
]  # fmt: skip
# Sent as JSON: values that are no object, mistakes in many fields at once, and what is not JSON at all.
BODIES = [
    "", "null", "true", "5", "1.5", '"x"', "[]", "[{}]", "{}", GOOD, " " + GOOD + "\n", GOOD + "x", GOOD + GOOD,
    '{"prompt": null, "max_new_tokens": null, "temperature": null}',
    '{"prompt": "p", "prompt": 5, "max_new_tokens": 5, "temperature": 0.2}',
    '{"temperature": 9, "max_new_tokens": "x", "prompt": 5, "top_p": 0, "stop_sequences": ["a", 1, null], "top_k": -2}',
    '{"skip_special_tokens": 2, "guided_grammar": 1, "guided_choice": [1], "guided_regex": 1, "guided_json": 1,'
    ' "include_stop_str_in_output": [], "top_p": 2, "top_k": 1.5, "frequency_penalty": 3, "presence_penalty": -1,'
    ' "return_token_log_probs": "maybe", "stop_sequences": "x", "temperature": 0.2, "max_new_tokens": 1, "prompt": "p"}',
    '{"prompt": "p", "max_new_tokens": 5, "temperature": 0.2, "prompts": 1, "top_k": null, "guided_json": null}',
    "{", "}", "[", "]", "{]", "[}", "x", "nul", "tru", "'a'", '"', '"a', '"a\\', '"\\x"', '"\\u12"', '"a\nb"', "-", "01",
    "1.", "+1", ".5", "1e", '{"a"', '{"a" 1}', '{"a":', '{"a":}', '{"a": 1', '{"a": 1,', '{"a": 1,}', '{"a": 1 "b": 2}',
    "{a: 1}", "{1: 1}", '{"a": 1}}', "[1", "[1,", "[1,]", "[1 2]", '{"a": x}', '\n{\n "a": x}', '{"\u00e9\u20ac": x}',
    "1 2", "//", "{,}", "[,]", '{"a":1,,}', "\ufeff{}", " ", "\n\t ",
]  # fmt: skip


def main():
    adapters = {name: TypeAdapter(kind) for name, kind in TYPES.items()}
    with open("pydantic-values.jsonl", "w", encoding="ascii") as file:
        for name, adapter in adapters.items():
            for value in VALUES[name]:
                file.write(compact({"type": name, "value": value, **verdict(adapter, value)}) + "\n")

    app = FastAPI()

    @app.post("/")
    def complete(model_endpoint_name: str, request: CompletionRequest):
        return None

    client = TestClient(app)
    pairs = [(content_type, GOOD) for content_type in CONTENT_TYPES]
    pairs += [("application/json", body) for body in BODIES]
    with open("fastapi-bodies.jsonl", "w", encoding="ascii") as file:
        for content_type, body in pairs:
            headers = {} if content_type is None else {"content-type": content_type}
            answer = client.post("/?model_endpoint_name=m", content=body.encode(), headers=headers)
            row = {"content_type": content_type, "body": body, "status": answer.status_code}
            file.write(compact({**row, **(answer.json() or {})}) + "\n")


if __name__ == "__main__":
    main()
