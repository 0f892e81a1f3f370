"""The simulated endpoint's files and batches, as OpenAI's: upload a JSONL file, make a batch of it, ask until it is done, fetch two files."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tasks.gateways.simulated_faults import Fault, completion, error_body, small_hash
from tasks.gateways.simulated_knowledge import UNKNOWN
from tasks.gateways.simulated_wire import HANG_UPS, hang_up

if TYPE_CHECKING:
    from tasks.gateways.simulated_server import SimulatedServer

ENDPOINT = "/v1/chat/completions"
_TERMINAL = ("completed", "failed", "expired", "cancelled")
_EXPIRED = {"code": "batch_expired", "message": "This request could not be executed before the completion window expired."}
_PAGE = 20  # batches a page, where the request names no limit
_Handler = Callable[[Request], Awaitable[Response]]
_Line = dict[str, Any]


@dataclass
class Batch:
    """One batch: the object that the API shows, its lines, and how often it was looked at."""

    shown: dict[str, Any]
    lines: list[_Line]
    polls: int = 0


@dataclass
class Batches:
    """Files and batches of one server, in memory. A batch moves on when it is retrieved; its lines are answered when it ends."""

    server: SimulatedServer
    files: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    failed_once: set[int] = field(default_factory=set)
    requests: int = 0

    def routes(self) -> list[Route]:
        """The endpoints."""
        table: list[tuple[str, str, _Handler]] = [
            ("POST", "/v1/files", self._upload),
            ("GET", "/v1/files/{id}", self._file),
            ("DELETE", "/v1/files/{id}", self._delete),
            ("GET", "/v1/files/{id}/content", self._content),
            ("POST", "/v1/batches", self._create),
            ("GET", "/v1/batches", self._list),
            ("GET", "/v1/batches/{id}", self._retrieve),
            ("POST", "/v1/batches/{id}/cancel", self._cancel),
        ]
        return [Route(path, self._with_faults(handler), methods=[method]) for method, path, handler in table]

    def _with_faults(self, handler: _Handler) -> _Handler:
        """The handler, or the fault of this request. A lost connection loses the reply to what was done."""

        async def handle(request: Request) -> Response:
            self.requests += 1
            fault = self.server.batch_faults.get(self.requests, Fault())
            await self.server.pause(fault.seconds)
            if fault.status != 200:
                return _refusal(fault.status, fault.code, f"simulated fault {fault.status}", headers=dict(fault.headers))
            response = await handler(request)
            return await hang_up(request, fault.shape) if fault.shape in HANG_UPS else response

        return handle

    async def _upload(self, request: Request) -> Response:
        parts = multipart(request.headers.get("content-type", ""), await request.body())
        if "file" not in parts or parts.get("purpose", ("", b""))[1] != b"batch":
            return _refusal(400, "invalid_request_error", "a file and the purpose 'batch' are needed")
        filename, content = parts["file"]
        return JSONResponse(self._keep(content, filename=filename, purpose="batch"))

    def _keep(self, content: bytes, *, filename: str, purpose: str) -> dict[str, Any]:
        name = f"file-{len(self.files) + 1}"
        shown = {"id": name, "object": "file", "bytes": len(content), "created_at": int(time.time()), "filename": filename}
        shown |= {"purpose": purpose, "status": "processed"}
        self.files[name] = (shown, content)
        return shown

    async def _file(self, request: Request) -> Response:
        found = self.files.get(request.path_params["id"])
        return JSONResponse(found[0]) if found else _missing("file", request)

    async def _delete(self, request: Request) -> Response:
        found = self.files.pop(request.path_params["id"], None)
        return JSONResponse({"id": found[0]["id"], "object": "file", "deleted": True}) if found else _missing("file", request)

    async def _content(self, request: Request) -> Response:
        found = self.files.get(request.path_params["id"])
        return Response(found[1], media_type="application/octet-stream") if found else _missing("file", request)

    async def _create(self, request: Request) -> Response:
        wanted = json.loads(await request.body())
        if str(wanted.get("input_file_id")) not in self.files:
            return _refusal(400, "invalid_request_error", f"no such file: {wanted.get('input_file_id')}")
        now = int(time.time())
        times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        shown = {
            "id": f"batch_{len(self.batches) + 1}",
            "object": "batch",
            "endpoint": wanted.get("endpoint"),
            "errors": None,
            "input_file_id": wanted["input_file_id"],
            "completion_window": wanted.get("completion_window"),
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + 86_400,
            **{f"{name}_at": None for name in times},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": wanted.get("metadata"),
        }
        self.batches[shown["id"]] = Batch(shown=shown, lines=[])
        return JSONResponse(shown)

    async def _list(self, request: Request) -> Response:
        shown = [batch.shown for batch in reversed(self.batches.values())]
        after, limit = request.query_params.get("after"), int(request.query_params.get("limit", _PAGE))
        start = next((place + 1 for place, each in enumerate(shown) if each["id"] == after), 0)
        page = shown[start : start + limit]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return JSONResponse({"object": "list", "data": page, **ends, "has_more": start + limit < len(shown)})

    async def _retrieve(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["id"])
        if batch is None:
            return _missing("batch", request)
        batch.polls += 1
        if batch.shown["status"] == "validating":
            self._validate(batch)
        if batch.shown["status"] == "cancelling":
            await self._end(batch, "cancelled", answered=self._progress(batch))
        elif batch.shown["status"] == "in_progress":
            if batch.polls <= self.server.batch_polls:
                batch.shown["request_counts"] |= {"completed": self._progress(batch)}
            elif self.server.batch_expires_after is None:
                await self._end(batch, "completed", answered=len(batch.lines))
            else:
                await self._end(batch, "expired", answered=math.ceil(len(batch.lines) * self.server.batch_expires_after))
        return JSONResponse(batch.shown)

    async def _cancel(self, request: Request) -> Response:
        batch = self.batches.get(request.path_params["id"])
        if batch is None:
            return _missing("batch", request)
        if batch.shown["status"] in _TERMINAL:
            return _refusal(400, "invalid_request_error", f"cannot cancel a batch with status '{batch.shown['status']}'")
        if batch.shown["status"] == "validating":
            self._validate(batch)
        if batch.shown["status"] == "in_progress":
            batch.shown |= {"status": "cancelling", "cancelling_at": int(time.time())}
        return JSONResponse(batch.shown)

    def _progress(self, batch: Batch) -> int:
        """Lines answered so far, were the batch to take its number of polls."""
        return len(batch.lines) * min(batch.polls, self.server.batch_polls) // (self.server.batch_polls + 1)

    def _validate(self, batch: Batch) -> None:
        """Read the file; the batch is in progress, or failed for what is wrong with it."""
        _, content = self.files.get(batch.shown["input_file_id"], ({}, b""))
        batch.lines, errors = read_lines(content)
        if self.server.batch_rejected:
            errors = [_fault(self.server.batch_rejected, "simulated rejection of the whole batch", None)]
        if errors:
            batch.shown |= {"status": "failed", "failed_at": int(time.time()), "errors": {"object": "list", "data": errors}}
            return
        batch.shown |= {"status": "in_progress", "in_progress_at": int(time.time())}
        batch.shown["request_counts"] |= {"total": len(batch.lines)}

    async def _end(self, batch: Batch, status: str, *, answered: int) -> None:
        """Answer lines, shuffled; the rest of an expired batch goes to the error file, that of a cancelled one nowhere."""
        lines = list(batch.lines)
        Random(f"{self.server.seed}|{batch.shown['id']}").shuffle(lines)
        written: list[_Line] = []
        for number, line in enumerate(lines[:answered]):
            if number % 500 == 499:
                await asyncio.sleep(0)
            written.append(self._answer(line, f"{batch.shown['id']}-{number + 1}"))
        good = [each for each in written if each["response"]["status_code"] == 200]
        bad = [each for each in written if each["response"]["status_code"] != 200]
        if status == "expired":
            bad += [{"id": f"batch_req_{line['custom_id']}", "custom_id": line["custom_id"], "response": None, "error": _EXPIRED} for line in lines[answered:]]
        now = int(time.time())
        batch.shown |= {"status": status, "finalizing_at": now, f"{status}_at": now}
        batch.shown["request_counts"] |= {"completed": len(good), "failed": len(bad)}
        for name, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                content = "".join(json.dumps(each) + "\n" for each in found).encode()
                batch.shown[name] = self._keep(content, filename=f"{batch.shown['id']}_{name[:-8]}.jsonl", purpose="batch_output")["id"]

    def _answer(self, line: _Line, name: str) -> _Line:
        """The line of the output or the error file for one request."""
        server, body = self.server, line["body"]
        server.batch_calls += 1
        attempt = server.attempt(body)
        status = 200
        reply: Any
        said = server.says(body)
        luck = small_hash(f"batch|{server.seed}|{attempt.body_key}")
        if (odd := server.instead(body)) is not None:
            status, reply = odd
        elif said is None:
            status, reply = 400, error_body(400, "unknown_question", UNKNOWN)
        elif luck / 2**64 < server.batch_fails and attempt.talk_key not in self.failed_once:
            self.failed_once.add(attempt.talk_key)
            status = (500, 429)[luck % 2]
            reply = error_body(status, "rate_limit_exceeded" if status == 429 else "", f"simulated fault {status}")
        else:
            shape = attempt.fault.shape if attempt.fault.shape in ("cut", "null") else "whole"
            server.account(attempt, shape)
            reply = completion(body, said, shape, name)
        response = {"status_code": status, "request_id": name, "body": reply}
        return {"id": f"batch_req_{name}", "custom_id": line["custom_id"], "response": response, "error": None}


def read_lines(content: bytes) -> tuple[list[_Line], list[dict[str, Any]]]:
    """The requests of an input file, and what is wrong with them."""
    lines: list[_Line] = []
    errors: list[dict[str, Any]] = []
    names: set[str] = set()
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = json.loads(text)
            name, method, url, body = line["custom_id"], line["method"], line["url"], line["body"]
            messages = body["messages"]
        except (ValueError, KeyError, TypeError):
            errors.append(_fault("invalid_json_line", "This line is not parseable as a request.", number))
            continue
        if name in names:
            errors.append(_fault("duplicate_custom_id", f"The custom_id {name!r} was used before.", number))
        if method != "POST" or url != ENDPOINT or not isinstance(messages, list):
            errors.append(_fault("invalid_request", f"Only POST {ENDPOINT} is simulated.", number))
        if lines and body.get("model") != lines[0]["body"].get("model"):
            errors.append(_fault("mismatched_model", "All requests of a batch must name one model.", number))
        names.add(name)
        lines.append(line)
    return lines, errors if lines or errors else [_fault("empty_file", "The input file is empty.", None)]


def multipart(content_type: str, content: bytes) -> dict[str, tuple[str, bytes]]:
    """(file name, content) of each named part of a form."""
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    parts: dict[str, tuple[str, bytes]] = {}
    for part in content.split(b"--" + found.group(1).encode())[1:-1] if found else []:
        head, _, value = part.partition(b"\r\n\r\n")
        names = dict(re.findall(r'(\w+)="([^"]*)"', head.decode("utf-8", "replace")))
        if "name" in names:
            parts[names["name"]] = (names.get("filename", ""), value.removesuffix(b"\r\n"))
    return parts


def _fault(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}


def _refusal(status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(error_body(status, code, message), status, headers)


def _missing(kind: str, request: Request) -> Response:
    return _refusal(404, f"{kind}_not_found", f"no such {kind}: {request.path_params['id']}")
