"""``gently-bluesky agent``: the tools for an agent, over MCP on standard input and output, or over HTTP."""

import contextlib
import os
import sys
from typing import Annotated

import typer

from gently_bluesky.cli.app import DEFAULT_ROOT, Root, app
from gently_bluesky.cli.serving import listen
from gently_bluesky.errors import ConfigError, MissingExtraError

_TOKEN = "GENTLY_TOKEN"
_MOST_CLIENTS = 64


@app.command()
def agent(
    root: Root = DEFAULT_ROOT,
    http: Annotated[
        bool, typer.Option("--http", help="Over streamable HTTP, at /mcp, not standard input.")
    ] = False,
    host: Annotated[
        str, typer.Option(help=f"With --http: beyond this machine only with {_TOKEN} set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --http; 0 takes any.")] = 8765,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="With --http: a further name of this server.")
    ] = None,
    may_tag: Annotated[bool, typer.Option("--may-tag", help="Let it add tags and notes to runs.")] = False,
    by: Annotated[str, typer.Option(help="In whose name it adds them.")] = "agent",
) -> None:
    """Offer the runs to an agent over MCP: pictures, tables and figures, read-only unless you allow tags."""
    try:
        from gently_bluesky.serve.agent.mcp_server import AgentServer, http_app  # noqa: PLC0415 - 0.6 s
    except ImportError as error:
        missing = (error.name or "more").partition(".")[0]
        raise MissingExtraError(
            f"An agent's server needs {missing}: pip install 'gently_bluesky[agent]'."
        ) from error
    if may_tag and not by.strip():
        raise ConfigError("--by is empty; say in whose name tags are added.")
    server = AgentServer(root, may_tag=may_tag, by=by)
    if not http:
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
        return
    import uvicorn  # noqa: PLC0415

    token = os.environ.get(_TOKEN) or None
    application = http_app(server, host=host, token=token, allowed_hosts=allow_host or ())
    config = uvicorn.Config(
        application, host=host, port=port, log_level="warning", limit_concurrency=_MOST_CLIENTS
    )
    socket = listen(host, port)
    print(f"gently-bluesky agent: http://{host}:{socket.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[socket])
