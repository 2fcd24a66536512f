"""Releases: publish, roll out, halt and watch them as a manager; fetch what is offered as a terminal."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field

from server.releases import words
from server.releases.bundle import open_bundle
from server.releases.publishing import plan_of, prepare
from server.releases.rollout import RolloutState
from server.releases.serving import ServedBundle
from server.releases.views import release_view, step_view, terminal_view
from server.storage import release_reads, releases, update_commands
from server.storage.database import Database
from server.web import uploads
from server.web.access import Caller, Role
from server.web.auth import Allow, Change
from server.web.etags import is_known
from server.web.idempotency import Call
from server.web.problems import Problem
from server.web.ranges import asked_range
from server.web.services import Services, services_of
from server.web.shapes import ID, Asked, Name, examples
from server.web.uploads import Upload, Uploaded
from server.wire.commands import WHAT, Layer
from server.wire.updates import REFERENCE_BYTES

router = APIRouter(tags=["releases"])
Reference = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="the release's reference, hex")]
Digest = Annotated[
    str, Path(pattern="^(?:[0-9a-f]{16}|[0-9a-f]{64})$", description="reference or whole hash")
]


class ReleaseView(BaseModel):
    """A published release, its rollout, and on how many terminals it is."""

    reference: str
    version: str
    hardware: str
    bytes: int
    state: str
    share_percent: float
    group: str
    halt_percent: int
    halt_failures: int
    reason: str
    superseded_by: str | None
    key_epoch: int
    key_retired: bool
    offered: int
    started: int
    installed: int
    failed: int


class LayerView(BaseModel):
    """What runs, where the update of it stands, and in words why it is not the newest."""

    hardware: str
    version: str | None
    slot: str | None
    state: str | None
    offset_bytes: int | None
    reason: str
    release: str | None
    outcome: str | None
    seen_at: int | None
    asked_at: int | None


class TerminalView(LayerView):
    """A terminal: what is about its application, and below ``image`` what is about its firmware image."""

    device: str
    group: str
    online: bool | None
    image: LayerView | None


class StatusView(BaseModel):
    """Every release and every terminal."""

    releases: list[ReleaseView]
    terminals: list[TerminalView]


class StepView(BaseModel):
    """One step of a terminal's updates; ``at`` in unix seconds."""

    at: int
    reference: str | None
    version: str
    slot: str
    state: str
    reason: str


class Published(BaseModel):
    """What was published; ``new`` is false where it was published before."""

    reference: str
    version: str
    hardware: str
    new: bool


class NewRelease(Asked):
    """A signed bundle: its two files, base64; and who gets it. 0 percent: nobody yet."""

    model_config = examples({"offer": "ggE=", "bundle": "AAECAw==", "percent": "1"})
    offer: str = Field(max_length=16_384)
    bundle: str = Field(max_length=250_000)
    percent: str = Field(default="0", max_length=8)
    group: str | None = Field(default=None, pattern=ID)
    halt_percent: int | None = None
    halt_failures: int | None = None


_UPLOAD = {
    "requestBody": {
        "required": True,
        "description": f"[offer-frame, bundle], at most {uploads.UPLOAD_MAX_BYTES} bytes",
        "content": {uploads.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class RolloutChange(Asked):
    """Another share, group or limit; what is left out stays."""

    model_config = examples({"percent": "25"}, {"percent": "100", "group": "terrace"})
    percent: str | None = Field(default=None, max_length=8)
    group: str | None = Field(default=None, pattern="^[a-z0-9-]{0,32}$")
    halt_percent: int | None = None
    halt_failures: int | None = None


class RolloutMove(Asked):
    """Pause, resume or halt; a halted rollout goes on only ``despite_failures``."""

    model_config = examples({"state": "halted", "reason": "guests see yesterday's menu"})
    state: Literal["running", "paused", "halted"]
    reason: str = Field(default="", max_length=200)
    despite_failures: bool = False


class TerminalCommand(Asked):
    """What a terminal shall do, with the updates of its application or of its firmware image."""

    model_config = examples({"command": "cancel"}, {"command": "release-quarantine", "layer": "image"})
    command: Literal["cancel", "release-quarantine"]
    layer: Literal["application", "image"] = "application"


async def _read(request: Request, reader: Any, *arguments: Any) -> Any:
    services = services_of(request)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(services.executor, reader, services.database, services.site, *arguments)


@router.get("/v1/releases")
async def published(
    request: Request, _: Annotated[Caller, Depends(Allow(Role.MANAGER))]
) -> list[ReleaseView]:
    """Published releases, oldest first."""
    return [ReleaseView(**release_view(one)) for one in await _read(request, release_reads.published)]


@router.post("/v1/releases", status_code=201, response_model=Published)
async def publish(
    request: Request, call: Annotated[Call, Depends(Change(Role.MANAGER))], body: NewRelease
) -> Response:
    """Publish a signed bundle; it is verified against the site's root key. Larger ones are uploaded."""
    asked = body.percent, body.group, body.halt_percent, body.halt_failures
    return await _publish(services_of(request), call, (_bytes(body.offer), _bytes(body.bundle)), asked)


@router.post(uploads.PATH, status_code=201, response_model=Published, openapi_extra=_UPLOAD)
async def upload(
    request: Request,
    uploaded: Annotated[Uploaded, Depends(Upload(Role.MANAGER))],
    percent: Annotated[str, Query(max_length=8)] = "0",
    group: Annotated[str | None, Query(pattern=ID)] = None,
    halt_percent: int | None = None,
    halt_failures: int | None = None,
) -> Response:
    """Publish a signed bundle of any size, firmware images too: a CBOR array of offer-frame and bundle."""
    asked = percent, group, halt_percent, halt_failures
    return await _publish(services_of(request), uploaded.call, uploaded.release(), asked)


async def _publish(
    services: Services,
    call: Call,
    release: tuple[bytes, bytes],
    asked: tuple[str, str | None, int | None, int | None],
) -> Response:
    """Verify offer-frame and bundle, store them with the rollout that was asked for."""
    loop = asyncio.get_running_loop()
    bundle = await loop.run_in_executor(services.executor, open_bundle, *release, services.keystore.root)
    new = prepare(bundle)
    plan = plan_of(new.ref, *asked)

    def change(database: Database) -> Published:
        fresh = releases.publish(database, services.site, new, plan, call.now_s)
        number = words.version(new.version)
        return Published(reference=new.ref.hex(), version=number, hardware=new.hardware, new=fresh)

    return await services.change(call, change, 201)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # not base64, or not even ASCII
        raise Problem(422, "invalid", "The bundle's files are not base64.") from None


@router.post("/v1/releases/{reference}/rollout")
async def roll_out(
    request: Request,
    call: Annotated[Call, Depends(Change(Role.MANAGER))],
    reference: Reference,
    body: RolloutChange,
) -> Response:
    """Offer a release to another share of the terminals, or to another group."""
    services, ref = services_of(request), bytes.fromhex(reference)
    percent = "0" if body.percent is None else body.percent
    wanted = plan_of(ref, percent, body.group, body.halt_percent, body.halt_failures)
    given: dict[str, int | str | None] = {
        "share": None if body.percent is None else wanted.share,
        "group": body.group,
        "halt_percent": body.halt_percent,
        "halt_failures": body.halt_failures,
    }
    changed = {name: value for name, value in given.items() if value is not None}

    def change(database: Database) -> dict[str, Any]:
        plan = releases.set_rollout(database, services.site, ref, call.now_s, **changed)
        return {"reference": reference, "state": plan.state, "share_percent": plan.share / 100,
                "group": plan.group, "halt_percent": plan.halt_percent,
                "halt_failures": plan.halt_failures}  # fmt: skip

    return await services.change(call, change)


@router.post("/v1/releases/{reference}/state")
async def move(
    request: Request,
    call: Annotated[Call, Depends(Change(Role.MANAGER))],
    reference: Reference,
    body: RolloutMove,
) -> Response:
    """Pause, resume or halt a rollout."""
    services, ref = services_of(request), bytes.fromhex(reference)

    def change(database: Database) -> dict[str, Any]:
        before = releases.move(
            database, services.site, ref, RolloutState(body.state), body.reason, call.now_s,
            despite=body.despite_failures,
        )  # fmt: skip
        return {"reference": reference, "state": body.state, "before": before}

    return await services.change(call, change)


@router.post("/v1/releases/terminals/{device}/command", status_code=202)
async def command(
    request: Request,
    call: Annotated[Call, Depends(Change(Role.MANAGER))],
    device: Name,
    body: TerminalCommand,
) -> Response:
    """Make a terminal give up its update, or let it try again what failed there; it is told within a day."""
    services = services_of(request)
    layer, what = Layer[body.layer.upper()], WHAT[body.command]

    def change(database: Database) -> dict[str, Any]:
        made = update_commands.command(database, services.site, device, layer, what, call.now_s)
        return {"device": device, "layer": body.layer, "command": body.command, "number": made.number}

    return await services.change(call, change, 202)


@router.get("/v1/releases/status")
async def status(request: Request, _: Annotated[Caller, Depends(Allow(Role.MANAGER))]) -> StatusView:
    """Every release's rollout, and what every terminal runs and why."""
    return StatusView(
        releases=[ReleaseView(**release_view(one)) for one in await _read(request, release_reads.published)],
        terminals=[
            TerminalView(**terminal_view(one)) for one in await _read(request, release_reads.terminals)
        ],
    )


@router.get("/v1/releases/history/{device}")
async def history(
    request: Request, _: Annotated[Caller, Depends(Allow(Role.MANAGER))], device: Name
) -> list[StepView]:
    """The last steps of a terminal's updates, oldest first."""
    if not await _read(request, release_reads.is_registered, device):
        raise Problem(404, "unknown_device", f"There is no device {device}.")
    return [StepView(**step_view(one)) for one in await _read(request, release_reads.history, device)]


@router.get("/v1/releases/{digest}/offer", response_class=Response)
async def offer(
    request: Request, caller: Annotated[Caller, Depends(Allow(Role.MANAGER, Role.DEVICE))], digest: Digest
) -> Response:
    """The offer-frame: signed manifest and release key certificate."""
    served = _served(services_of(request), caller, digest)
    return Response(served.offer_frame, media_type="application/cbor", headers=_headers(served))


@router.get("/v1/releases/{digest}", response_class=Response)
async def bundle(
    request: Request,
    caller: Annotated[Caller, Depends(Allow(Role.MANAGER, Role.DEVICE))],
    digest: Digest,
    range_: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A bundle's bytes, whole or a range of them; a terminal may fetch what its rollouts give it."""
    served = _served(services_of(request), caller, digest)
    data, headers = served.bundle.data, _headers(served)
    if is_known(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    part = asked_range(range_, if_range, headers["ETag"], len(data))
    if part is None:
        return Response(data, media_type="application/octet-stream", headers=headers)
    headers["Content-Range"] = f"bytes {part[0]}-{part[1]}/{len(data)}"
    return Response(data[part[0] : part[1] + 1], 206, headers=headers, media_type="application/octet-stream")


def _headers(served: ServedBundle) -> dict[str, str]:
    return {
        "ETag": f'"{served.bundle.hash.hex()}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=86400, immutable",
    }


def _served(services: Services, caller: Caller, digest: str) -> ServedBundle:
    """Raises: Problem(unknown_release), also for a release that is not for this terminal."""
    served = services.updates.served(bytes.fromhex(digest)[:REFERENCE_BYTES])
    if (
        served is None
        or not served.bundle.hash.hex().startswith(digest)
        or (caller.device is not None and not services.updates.may_fetch(caller.device, served.ref))
    ):
        raise Problem(404, "unknown_release", "No such release is offered here.")
    return served
