"""The tools over MCP: on standard input and output for one agent, or over streamable HTTP.

Every expected error is a tool error with the words of the error; arguments that no tool has are refused. A few
calls run at once, each with a catalog of its own; the rest wait, so an agent that asks for very much slows itself.
"""

import contextlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from queue import LifoQueue
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from gently_bluesky import __version__
from gently_bluesky.errors import ConfigError, GentlyError
from gently_bluesky.read.catalog import Catalog
from gently_bluesky.serve.agent.answering import Facts, Shown, as_text
from gently_bluesky.serve.agent.tools import READING, WRITING, bound
from gently_bluesky.serve.doors import Doors, Limits, is_loopback, names_of_host

if TYPE_CHECKING:
    from starlette.types import ASGIApp

AT_ONCE = 4
"""So many calls run at once."""

_BODY_BYTES = 1 << 20  # of a call

INSTRUCTIONS = """\
The data of a dual-view light-sheet microscope (diSPIM): runs of plans, events, volumes (z, y, x) of embryos.
Begin with get_status or list_embryos. An embryo is unique within its session; timepoints count from 0; "-1" is the
newest run. Tools that end in image, plane, projection, sheet, overlay or timepoints show pictures, with the true
counts in words. Every answer says run, seq_num and file, and how to get more; an error says what there is.
"""

_EXPECTED = (GentlyError, ValueError, LookupError, TypeError, OSError, ArithmeticError, MemoryError)


class Catalogs:
    """As many catalogs of one root as calls may run at once: one thread at a time looks into each."""

    def __init__(self, root: Path | str, at_once: int = AT_ONCE) -> None:
        self._free: LifoQueue[Catalog] = LifoQueue()
        for _ in range(at_once):
            self._free.put(Catalog(root))

    @contextlib.contextmanager
    def one(self) -> Iterator[Catalog]:
        """Lend a catalog that nobody else has, as soon as there is one."""
        catalog = self._free.get()
        try:
            yield catalog
        finally:
            self._free.put(catalog)


class AgentServer(MCPServer[Any]):
    """An MCP server of the tools.

    Parameters
    ----------
    root
        Of the runs.
    may_tag
        Whether tags and notes may be written, and `by` whom.
    """

    def __init__(self, root: Path | str, *, may_tag: bool = False, by: str = "agent") -> None:
        super().__init__(
            "gently_bluesky",
            instructions=INSTRUCTIONS,
            version=__version__,
            log_level="WARNING",
            subscriptions=False,
        )
        catalogs = Catalogs(root)
        self._parameters: dict[str, Mapping[str, inspect.Parameter]] = {}
        for name, tool in READING.items():
            self._offer(name, tool, catalogs, read_only=True)
        for name, tool in WRITING.items() if may_tag else ():
            self._offer(name, tool, catalogs, by, read_only=False)

    def _offer(
        self, name: str, tool: Callable[..., Any], catalogs: Catalogs, *given: str, read_only: bool
    ) -> None:
        asked = bound(partial(_answer, catalogs, tool, *given), tool, 1 + len(given))
        self._parameters[name] = inspect.signature(asked).parameters
        self.add_tool(
            asked,
            name=name,
            description=inspect.getdoc(tool),
            annotations=ToolAnnotations(
                read_only_hint=read_only, destructive_hint=False, idempotent_hint=read_only, open_world_hint=False
            ),
            structured_output=False,
        )

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; a ToolError for arguments that it does not have or take."""
        known = self._parameters.get(name)
        if known is None:
            raise ToolError(f"There is no tool {name!r:.80}; there are {list(self._parameters)}.")
        if unknown := sorted(arguments.keys() - known):
            raise ToolError(f"{name} takes no {unknown[0]!r:.80}; it takes {[*known]}.")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            wrong = str(error.__cause__.errors(include_url=False)[0]["loc"][0])
            came = f"{wrong} is {arguments[wrong]!r:.80}" if wrong in arguments else f"{wrong} is not given"
            raise ToolError(f"{name}: {came}; it takes {_said(known[wrong].annotation)}.") from None


_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    types.NoneType: "null",
}


def _said(kind: Any) -> str:
    """Say in words what an argument of a type may be.

    >>> _said(list[int] | None), _said(Literal["z", "y"])
    ('a list (each a whole number) or null', '"z" or "y"')
    """
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in get_args(kind))
    if origin is list:
        return f"a list (each {_said(get_args(kind)[0])})"
    if origin in {None, dict}:
        return _WORDS[origin or kind]
    return " or ".join(map(_said, get_args(kind)))


def _answer(catalogs: Catalogs, tool: Callable[..., Facts | Shown], *args: Any, **kwargs: Any) -> list[Any]:
    """Call a tool, and give what it says and shows as content."""
    try:
        with catalogs.one() as catalog:
            answer = tool(catalog, *args, **kwargs)
    except _EXPECTED as error:
        raise ToolError(str(error) or repr(error)) from error
    facts = answer.facts if isinstance(answer, Shown) else answer
    text = TextContent(type="text", text=as_text(facts))
    return [text, Image(data=answer.jpeg, format="jpeg")] if isinstance(answer, Shown) else [text]


# --- over HTTP ----------------------------------------------------------------------------------------------


def http_app(
    server: AgentServer, *, host: str = "127.0.0.1", token: str | None = None, allowed_hosts: Iterable[str] = ()
) -> "ASGIApp":
    """Give the server as an ASGI application, at /mcp, behind the doors that `serve` has.

    Parameters
    ----------
    host
        Where it will listen; beyond this machine only with a token.
    token
        What clients must send: ``Authorization: Bearer <token>``.
    allowed_hosts
        Names that it answers to, beside localhost and addresses.

    Raises
    ------
    ConfigError
        It would listen beyond this machine without a token, or the token is too short to be one.
    """
    if token is None and not is_loopback(host):
        raise ConfigError(f"{host} can be reached from other machines: give a token, or listen on 127.0.0.1.")
    app = server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        host=host,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the doors do
        max_request_body_size=_BODY_BYTES,
    )
    return Doors(token, names_of_host(host, allowed_hosts))(app, Limits(body_bytes=_BODY_BYTES))
