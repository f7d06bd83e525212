"""What schemathesis is told about this API before it makes requests of the OpenAPI document.

The scheduler under test runs commands on this machine, and a request may bring one. So no request leaves here with a
program that schemathesis made up: see `harmless`.
"""

import itertools
import re

import schemathesis

# The document promises less than the scheduler takes: a field that is null is as one left out, and where text is asked
# for, mostly, a number or a boolean is taken for it. Clients should not build on that, and generated ones cannot, so the document
# has the plain types; but it is no finding that such a request is not refused.
REQUESTS = "JobScheduleDescription"


@schemathesis.hook
def before_load_schema(context, raw_schema):
    # It goes on until one side closes it.
    del raw_schema["paths"]["/api/v1/events"]
    schemas = raw_schema["components"]["schemas"]
    seen = set()

    def widen(schema, is_field):
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            if name not in seen:
                seen.add(name)
                widen(schemas[name], False)
            # OpenAPI 3.0 has no `nullable` beside a reference.
            if is_field:
                schema["allOf"] = [{"$ref": schema.pop("$ref")}]
                schema["nullable"] = True
            return
        for name, field in schema.get("properties", {}).items():
            if name in schema.get("required", []):
                widen(field, False)
                continue
            widen(field, True)
            if field.get("type") == "string" and "enum" not in field and name not in ("payload", "jobId"):
                text = {k: field.pop(k) for k in list(field) if k not in ("description", "example", "nullable")}
                field["anyOf"] = [text, {"type": "number"}, {"type": "boolean"}]
            field["nullable"] = True
        for inner in (schema.get("items"), schema.get("additionalProperties")):
            if isinstance(inner, dict):
                widen(inner, False)
                if inner.get("type") == "string":
                    inner["anyOf"] = [{"type": inner.pop("type")}, {"type": "number"}, {"type": "boolean"}]

    widen({"$ref": f"#/components/schemas/{REQUESTS}"}, False)
    # Nor that a job is made of no body, which is one with everything as configured.
    raw_schema["paths"]["/api/v1/jobs"]["post"]["requestBody"]["required"] = False


keyed = itertools.count()


def harmless(words):
    """A list of words of the same shape in which every word is `true`, the program that does nothing."""
    if not isinstance(words, list):
        return words
    return [word if isinstance(word, (dict, list)) or word is None else "true" for word in words]


@schemathesis.hook
def before_call(context, case, kwargs):
    if isinstance(case.body, dict):
        for field in ("command", "args"):
            if field in case.body:
                case.body[field] = harmless(case.body[field])
    # Two requests with a key have it in common, and not all of them.
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,240}", key):
        case.headers["Idempotency-Key"] = f"{key}-{next(keyed) // 2}"
    # A job that needs more than this machine has is waited for in vain: not for long.
    wait = (case.query or {}).get("wait")
    if isinstance(wait, str) and wait.rstrip("sm").isdigit():
        case.query["wait"] = "1s" if int(wait.rstrip("sm")) else wait
