"""What the slash commands of the chat do."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orginabox_sdk.orginabox.api.v1 import BusyPolicy, ListSessionsRequest, Session
from rich.console import Group
from rich.table import Table
from rich.text import Text as Styled

from gateways.chat import words
from gateways.chat.cli.audit import record_row, records
from gateways.chat.cli.runtime import model_name
from gateways.chat.conversation import Waiting
from gateways.chat.render import unfolded
from gateways.chat.slash import Slash, find

if TYPE_CHECKING:
    from gateways.chat.app import Chat

LISTED_SESSIONS = 15
LISTED_RECORDS = 20
KEYS = (
    ("Enter", "send; while the agent works it waits in line, see /inbox"),
    ("Alt-Enter", "a new line"),
    ("Ctrl-C", "abort the turn; at an empty prompt twice: leave"),
    ("Ctrl-O", "show the output of the last tool"),
    ("Ctrl-D", "leave; what runs goes on in the box"),
)


class Commands:
    """The slash commands of a chat. `table` has them by name."""

    def __init__(self, chat: "Chat") -> None:
        self._chat = chat
        self._listed: list[Session] = []
        self._inbox_listed: list[Waiting] = []
        self.table = {command.name: command for command in self._all()}

    async def run(self, text: str) -> None:
        """Do what a line that begins with a slash asks for."""
        command, argument = find(self.table, text)
        if command is None:
            await self._chat.say(
                Styled(
                    f"There is no {text.split(maxsplit=1)[0]}. /help shows what there is; // says it to the agent.",
                    style="red",
                )
            )
        else:
            await command.action(argument)

    def _all(self) -> Iterable[Slash]:
        yield Slash("/help", "", "show the commands and keys", self._help)
        yield Slash("/new", "", "begin a new session", self._new)
        yield Slash("/sessions", "", "list your sessions", self._sessions)
        yield Slash("/resume", "<n>", "go on with a session of the list", self._resume_listed, self._session_choices)
        yield Slash("/model", "[provider/model]", "show or choose the model", self._model, self._model_choices)
        yield Slash("/tools", "", "list the tool calls of this chat", self._list_tools)
        yield Slash("/expand", "[n]", "show the output of a tool call", self.expand, self._tool_choices)
        yield Slash(
            "/inbox", "[edit n|remove n]", "list, reword or remove what waits in line", self._inbox, self._inbox_choices
        )
        yield Slash("/steer", "<text>", "say something into the turn that runs", self._steer)
        yield Slash("/interrupt", "<text>", "stop the turn that runs for something else", self._interrupt)
        yield Slash("/abort", "", "abort the turn", self._abort)
        yield Slash("/status", "", "show the box, the session and the models", self._show_status)
        yield Slash("/audit", "[action]", "show who did what, such as agent.*", self._audit)
        yield Slash("/quit", "", "leave", self._quit)

    async def _help(self, _: str) -> None:
        table = _grid()
        for command in self.table.values():
            _add(table, f"{command.name} {command.argument}".rstrip(), Styled(command.does, style="dim"))
        for key, does in KEYS:
            _add(table, key, Styled(does, style="dim"))
        await self._chat.say(table)

    async def _new(self, _: str) -> None:
        await self._chat.turn_to("")
        await self._chat.say(Styled("A new session. Say something.", style="bold"))

    async def _sessions(self, _: str) -> None:
        await self._learn_sessions()
        if not self._listed:
            await self._chat.say(Styled("No sessions yet. Say something.", style="dim"))
            return
        table = _grid()
        for number, session in enumerate(self._listed, 1):
            here = session.session_id == self._chat.conversation.session_id
            when = "this one" if here else words.ago(session.update_time)
            _add(table, str(number), words.one_line(session.title or "(untitled)", 50), Styled(when, style="dim"))
        await self._chat.say(Group(table, Styled("/resume <n> goes on with one", style="dim")))

    async def _learn_sessions(self) -> None:
        page = await self._chat.client.sessions.list_sessions(ListSessionsRequest(page_size=LISTED_SESSIONS))
        self._listed = page.sessions

    async def _resume_listed(self, argument: str) -> None:
        if not self._listed:
            await self._learn_sessions()
        if not argument.isdigit() or not 1 <= int(argument) <= len(self._listed):
            await self._chat.say(
                Styled("Which one? /sessions lists them; /resume 2 goes on with the second.", style="red")
            )
            return
        await self._chat.turn_to(self._listed[int(argument) - 1].session_id)

    async def _model(self, argument: str) -> None:
        self._chat.runtime = (await self._chat.client.providers.get_runtime_status()).status or self._chat.runtime
        if not argument:
            table = _grid()
            chosen = model_name(self._chat.conversation.model or self._chat.runtime.default_model)
            for model in self._chat.runtime.models:
                _add(table, model_name(model), Styled("this one" if model_name(model) == chosen else "", style="dim"))
            await self._chat.say(Group(table, Styled("/model provider/model chooses one", style="dim")))
            return
        known = {model_name(model): model for model in self._chat.runtime.models}
        if argument not in known:
            await self._chat.say(Styled(f"There is no model {argument}. /model lists them.", style="red"))
            return
        self._chat.conversation.model = known[argument]
        await self._chat.say(Styled(f"From now on: {argument}", style="bold"))

    async def _list_tools(self, _: str) -> None:
        if not self._chat.tools:
            await self._chat.say(Styled("No tool was called yet.", style="dim"))
            return
        table = _grid()
        for number, tool in enumerate(self._chat.tools, 1):
            lines = len(tool.output.splitlines())
            _add(
                table,
                str(number),
                f"{tool.tool} {words.one_line(tool.title, 60)}",
                Styled(f"{lines} lines", style="dim"),
            )
        await self._chat.say(Group(table, Styled("/expand <n> shows the output of one", style="dim")))

    async def expand(self, argument: str) -> None:
        """Show the output of a tool call, or of the last one."""
        number = int(argument) if argument.isdigit() else len(self._chat.tools)
        if not 1 <= number <= len(self._chat.tools):
            await self._chat.say(Styled("There is no such tool call. /tools lists them.", style="dim"))
            return
        await self._chat.say(unfolded(self._chat.tools[number - 1]))

    async def _inbox(self, argument: str) -> None:
        verb, _, rest = argument.partition(" ")
        number, _, text = rest.strip().partition(" ")
        if not verb:
            await self._list_inbox()
        elif verb not in {"edit", "remove"} or not number.isdigit():
            await self._say_usage()
        elif (turn := await self._waiting(int(number))) is None:
            await self._chat.say(Styled(f"Nothing waits at {number}. /inbox lists what does.", style="red"))
        elif verb == "remove":
            await self._chat.conversation.remove(turn)
            await self._chat.say(Styled(f"Removed: {words.one_line(turn.text, 60)}", style="bold"))
        elif text.strip():
            await self._chat.conversation.reword(turn, text.strip())
            await self._chat.say(Styled(f"It says now: {words.one_line(text, 60)}", style="bold"))
        else:
            self._chat.offer(f"/inbox edit {number} {turn.text}")

    async def _list_inbox(self) -> None:
        await self._chat.conversation.refresh()
        self._inbox_listed = list(self._chat.conversation.waiting)
        if not self._inbox_listed:
            await self._chat.say(Styled("Nothing waits. What you say while the agent works waits here.", style="dim"))
            return
        table = _grid()
        for number, turn in enumerate(self._inbox_listed, 1):
            _add(table, str(number), words.one_line(turn.text, 70))
        hint = "/inbox edit <n> rewords one · /inbox remove <n> takes it back"
        await self._chat.say(Group(table, Styled(hint, style="dim")))

    async def _say_usage(self) -> None:
        told = "Say /inbox, /inbox edit 2 with other words, or /inbox remove 2."
        await self._chat.say(Styled(told, style="red"))

    async def _waiting(self, number: int) -> Waiting | None:
        """What waits at a number: that of the last list, which may have moved on since, else of what waits now."""
        seen = 1 <= number <= len(self._inbox_listed)
        listed = self._inbox_listed if seen else self._chat.conversation.waiting
        if not 1 <= number <= len(listed):
            return None
        here = {turn.turn_id: turn for turn in self._chat.conversation.waiting}
        return here.get(listed[number - 1].turn_id)

    async def _steer(self, text: str) -> None:
        await self._say_so(text, BusyPolicy.STEER, f"/steer {text}")

    async def _interrupt(self, text: str) -> None:
        await self._say_so(text, BusyPolicy.INTERRUPT, f"/interrupt {text}")

    async def _say_so(self, text: str, policy: BusyPolicy, typed: str) -> None:
        if text:
            await self._chat.prompt(text, policy, typed)
        else:
            await self._chat.say(Styled(f"Say what: {typed.strip()} and your words.", style="red"))

    async def _abort(self, _: str) -> None:
        if self._chat.conversation.current is None:
            await self._chat.say(Styled("Nothing runs.", style="dim"))
        await self._chat.conversation.abort()

    async def _show_status(self, _: str) -> None:
        self._chat.runtime = (await self._chat.client.providers.get_runtime_status()).status or self._chat.runtime
        table = _grid()
        _add(table, "box", self._chat.place.url)
        _add(table, "session", self._chat.conversation.session_id or "new")
        _add(table, "model", model_name(self._chat.conversation.model or self._chat.runtime.default_model))
        _add(table, "runtime", "applied" if self._chat.runtime.in_sync else "changes wait: oiab runtime apply")
        _add(table, "in line", str(len(self._chat.conversation.waiting)))
        await self._chat.say(table)

    async def _audit(self, argument: str) -> None:
        found = await records(self._chat.client, argument, None, LISTED_RECORDS)
        if not found:
            await self._chat.say(Styled("No records fit.", style="dim"))
            return
        table = _grid()
        for record in found:
            when, action, target, _, way = record_row(record)
            _add(table, when, action, Styled(target, style="dim"), Styled(way, style="dim"))
        await self._chat.say(table)

    async def _quit(self, _: str) -> None:
        self._chat.leave()

    def _inbox_choices(self) -> Iterable[tuple[str, str]]:
        waiting = self._inbox_listed or self._chat.conversation.waiting
        return [
            (f"{verb} {number}", words.one_line(turn.text, 40))
            for verb in ("edit", "remove")
            for number, turn in enumerate(waiting, 1)
        ]

    def _session_choices(self) -> Iterable[tuple[str, str]]:
        return [(str(number), session.title) for number, session in enumerate(self._listed, 1)]

    def _model_choices(self) -> Iterable[tuple[str, str]]:
        return [(model_name(model), "") for model in self._chat.runtime.models]

    def _tool_choices(self) -> Iterable[tuple[str, str]]:
        return [(str(number), f"{tool.tool} {tool.title}") for number, tool in enumerate(self._chat.tools, 1)]


def _add(table: Table, *cells: str | Styled) -> None:
    """Add a row whose text is taken as it is: brackets in it are no markup."""
    table.add_row(*(cell if isinstance(cell, Styled) else Styled(cell) for cell in cells))


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    return table
