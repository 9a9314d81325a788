"""What an agent asks the data for: small answers with run, event and file, as Python functions and over MCP."""

from gently_bluesky.serve.agent.answering import NotThereError, Shown
from gently_bluesky.serve.agent.tools import Tools

__all__ = ["NotThereError", "Shown", "Tools"]
