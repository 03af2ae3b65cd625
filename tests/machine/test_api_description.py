"""api/openapi.yaml against the tables in the source: every path, method, field, type and name of the
one is in the other. The tables are printed by the unit test of the routes.
"""

from __future__ import annotations

import re
import subprocess
from typing import Any

from mayfly import BUILD, ROOT, Monitor, skip

METHODS = {"get", "put", "patch", "delete"}


# ---- as much YAML as the description uses ----------------------------------------------------------


def scalar(text: str) -> Any:
    text = text.strip()
    if text.startswith('"'):
        return text[1:-1]
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def split(text: str) -> list[str]:
    """At the commas that are in no brackets or quotes."""
    parts, depth, quoted = [""], 0, False
    for c in text:
        quoted ^= c == '"'
        depth += 0 if quoted else (c in "{[") - (c in "}]")
        if c == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts if p.strip()]


def flow(text: str) -> Any:
    text = text.strip()
    if text.startswith("{"):
        return {k.strip(): flow(v) for k, v in (p.split(":", 1) for p in split(text[1:-1]))}
    if text.startswith("["):
        return [flow(p) for p in split(text[1:-1])]
    return scalar(text)


def block(lines: list[tuple[int, str]], at: int, indent: int) -> tuple[Any, int]:
    """The block that begins at line `at`, which has this indent."""
    if lines[at][1].startswith("- "):
        items = []
        while at < len(lines) and lines[at][0] == indent and lines[at][1].startswith("- "):
            lines[at] = (indent + 2, lines[at][1][2:])
            if lines[at][1].startswith("{"):
                items.append(flow(lines[at][1]))
                at += 1
            else:
                item, at = block(lines, at, indent + 2)
                items.append(item)
        return items, at
    result: dict[str, Any] = {}
    while at < len(lines) and lines[at][0] == indent:
        key, value = re.fullmatch(r'("[^"]*"|[^:]+):(?:\s+(.*))?', lines[at][1]).groups()
        at += 1
        if value == ">-":
            while at < len(lines) and lines[at][0] > indent:
                at += 1
        elif value is None:
            result[key.strip('"')], at = block(lines, at, lines[at][0])
        else:
            result[key.strip('"')] = flow(value)
    assert at == len(lines) or lines[at][0] < indent, lines[at]
    return result, at


def read_description() -> dict[str, Any]:
    lines = []
    for line in (ROOT / "api" / "openapi.yaml").read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            lines.append((len(line) - len(line.lstrip()), line.strip()))
    description, at = block(lines, 0, 0)
    assert at == len(lines)
    return description


# ---- both, in one form -----------------------------------------------------------------------------


def resolve(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        node: Any = description
        for part in schema["$ref"][2:].split("/"):
            node = node[part]
        schema = node
    return schema


def fields_of(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    schema = resolve(description, schema)
    result = {}
    for name, raw in schema["properties"].items():
        field = resolve(description, raw)
        inner = fields_of(description, field) if field["type"] == "object" else None
        names = sorted(str(n) for n in field.get("enum", []))
        result[name] = (field["type"], name in schema.get("required", []), names, inner)
    return result


def described() -> dict[tuple[str, str], Any]:
    description = read_description()
    result = {}
    for path, item in description["paths"].items():
        for method in METHODS & set(item):
            operation = item[method]
            body = operation.get("requestBody")
            if body:
                body = fields_of(description, body["content"]["application/json"]["schema"])
            result[method.upper(), path] = body
    return result


def parse_fields(lines: list[str], indent: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    while lines and len(lines[0]) - len(lines[0].lstrip()) == indent:
        name, kind, need, *names = lines.pop(0).split()
        inner = parse_fields(lines, indent + 2) if kind == "object" else None
        result[name] = (kind, need == "required", sorted(names), inner)
    return result


def implemented() -> dict[tuple[str, str], Any]:
    program = BUILD / "unit" / "test_routes"
    if not program.exists():
        skip(f"{program} is not built")
    printed = subprocess.run([program, "--print"], capture_output=True, text=True, check=True).stdout
    lines = printed.splitlines()
    result = {}
    while lines:
        method, path, support = lines.pop(0).split()
        fields = parse_fields(lines, 2)
        if support == "supported":
            result[method, path] = fields or None
    return result


def test_the_description_is_what_is_implemented():
    left, right = described(), implemented()
    assert len(right) > 10
    assert sorted(left) == sorted(right), sorted(set(left) ^ set(right))
    for key in left:
        assert left[key] == right[key], f"{key}:\n  {left[key]}\nnot\n  {right[key]}"


# What is not in the contract, and answers a change with how long the machine stood still.
PAUSES = {"/snapshot/create": {"200", "204"}, "/snapshot/share": {"200"}}


def test_every_operation_is_complete():
    description = read_description()
    seen = set()
    for path, item in description["paths"].items():
        if "{id}" in path:
            assert item["parameters"], path
        for method in METHODS & set(item):
            operation = item[method]
            assert operation["operationId"] not in seen
            seen.add(operation["operationId"])
            assert operation["summary"]
            # H9: reads are 200 with a body, changes are 204 without.
            wanted = {"default"} | ({"200"} if method == "get" else PAUSES.get(path, {"204"}))
            if method == "delete":
                wanted = {"default"}
            assert set(operation["responses"]) == wanted, (method, path)


def test_the_version_is_the_one_reported():
    text = (ROOT / "src" / "vmm" / "version.h").read_text()
    version = re.search(r'VERSION_API\s+"([^"]+)"', text).group(1)
    assert read_description()["info"]["version"] == version


def test_the_whole_configuration_has_every_key():
    with Monitor() as m:
        shown = m.api.get("/vm/config").json
    described_keys = read_description()["components"]["schemas"]["FullConfig"]["properties"]
    assert list(shown) == list(described_keys)
