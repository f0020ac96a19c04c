"""A scripted, OpenAI-compatible model: the same words for the same prompt, every time."""

from tests.model_server.script import Fault, Script, Step, ToolCall, scenario
from tests.model_server.server import ModelServer, RecordedRequest

__all__ = ["Fault", "ModelServer", "RecordedRequest", "Script", "Step", "ToolCall", "scenario"]
