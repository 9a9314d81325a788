"""``gently-bluesky serve``: a root over HTTP, for viewers, colleagues and programs."""

import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from gently_bluesky.cli.app import DEFAULT_ROOT, Root, app, out
from gently_bluesky.errors import ConfigError, MissingExtraError


@app.command()
def serve(
    root: Root = DEFAULT_ROOT,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="GENTLY_TOKEN",
            help="What clients must show; beyond this machine one is made, if none is given. Better in "
            "GENTLY_TOKEN, as other users see what a command is given.",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file that holds the token.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A further name of this server.")] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Pages of this origin may ask, e.g. https://viewer.example.org.")
    ] = None,
    may_tag: Annotated[bool, typer.Option("--may-tag", help="Clients may add tags and notes.")] = False,
    old_routes: Annotated[bool, typer.Option("--old-routes", help="Answer the old viewer's routes, too.")] = False,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log every request; tokens are not in it.")
    ] = False,
) -> None:
    """Serve a root over HTTP: an API, a page, OME-Zarr. It only reads; who acquires does not notice."""
    try:
        import uvicorn  # noqa: PLC0415 - an extra

        from gently_bluesky.serve.app import create_app  # noqa: PLC0415
        from gently_bluesky.serve.doors import is_loopback, names_of_host  # noqa: PLC0415
        from gently_bluesky.serve.patience import patient, patient_socket  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(f"Serving needs {error.name}: pip install 'gently_bluesky[server]'.") from error
    if token_file is not None:
        if token is not None:
            raise ConfigError("There are two tokens, one in a file; give one.")
        token = token_file.read_text(encoding="utf-8").strip()
    made = token is None and not is_loopback(host)
    if made:
        token = secrets.token_urlsafe(32)
    application = create_app(
        root,
        token=token,
        allowed_hosts=names_of_host(host, allow_host or ()),
        allowed_origins=allow_origin or (),
        may_tag=may_tag,
        old_routes=old_routes,
    )
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        http=patient(),
        ws=patient_socket(),
        ws_per_message_deflate=False,  # pictures are compressed already
        access_log=access_log,
        server_header=False,
        log_level="info" if access_log else "warning",
        limit_concurrency=512,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
        ws_max_size=64 << 10,
    )
    listening = listen(host, port)
    shown = f"http://{_shown(host)}:{listening.getsockname()[1]}/" + (f"?token={token}" if made else "")
    out.print(f"{root} is at {shown}", highlight=False, markup=False, soft_wrap=True)
    uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; ConfigError if that cannot be."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"Nobody can listen on port {port} of {host}: {error.strerror or error}. --port takes another; 0 any."
        ) from error


def _shown(host: str) -> str:
    if host in {"0.0.0.0", "::"}:
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
