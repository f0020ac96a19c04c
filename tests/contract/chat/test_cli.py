"""The command line against the public services: what is printed where, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_box.process import ROOT, client_environment, free_port, running_box

KEY = "a-key"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Oiab:
    """The command line, with a home of its own."""

    environ: dict[str, str]

    def __call__(self, *arguments: str, stdin: str = "", **more: str) -> Ended:
        """Run a command."""
        done = subprocess.run(
            [sys.executable, "-m", "gateways.chat", *arguments],
            env=self.environ | more,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "gateways.chat", *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )


@pytest.fixture
def oiab(tmp_path: Path) -> Iterator[Oiab]:
    """The command line with a box."""
    with running_box(KEY) as port:
        yield Oiab(client_environment(tmp_path, port, KEY))


@pytest.fixture
def lonely(tmp_path: Path) -> Oiab:
    """The command line without a box."""
    return Oiab(client_environment(tmp_path, free_port(), KEY))


def test_help_teaches(lonely: Oiab) -> None:
    shown = lonely("--help")
    assert shown.code == 0
    assert all(word in shown.out for word in ("up", "down", "ask", "chat", "provider", "runtime", "audit", "OIAB_HOME"))
    assert "git diff | oiab ask -" in lonely("ask", "--help").out


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from gateways.chat.cli.app import build; build(); print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not {"'grpc'", "'orginabox_sdk'", "'prompt_toolkit'"} & set(loaded.strip("[]\n").split(", "))


def test_asks(oiab: Oiab) -> None:
    ended = oiab("ask", "hello there")
    assert (ended.code, ended.out) == (0, "You said: hello there\n")
    assert "demo model" in ended.err


def test_asks_what_the_standard_input_says(oiab: Oiab) -> None:
    assert oiab("ask", "-", stdin="piped words").out == "You said: piped words\n"
    assert oiab("ask", "-", stdin=" ").code == 2


def test_the_answer_alone_goes_to_stdout(oiab: Oiab) -> None:
    ended = oiab("ask", "bash ls -la")
    assert ended.out == "Let me look.\n\nThree lines.\n"
    assert "· bash ls -la\n✓ bash ls -la (0.4s)\n" in ended.err


def test_goes_on_with_a_session(oiab: Oiab) -> None:
    oiab("ask", "first")
    session = json.loads(oiab("sessions", "list", "--json").out)[0]["sessionId"]
    oiab("ask", "--session", session, "bash second")
    assert oiab("sessions", "show", session).out == (
        "\u203a first\n\nYou said: first\n\n\u203a bash second\n\nLet me look.\n✓ bash second\nThree lines.\n"
    )
    assert len(json.loads(oiab("sessions", "list", "--json").out)) == 1


def test_a_cut_loses_and_doubles_nothing(oiab: Oiab) -> None:
    ended = oiab("ask", "cut 2 bash ls")
    assert ended.out == "Let me look.\n\nThree lines.\n"
    assert "reconnecting…" in ended.err


def test_prints_events_as_json(oiab: Oiab) -> None:
    events = [json.loads(line) for line in oiab("ask", "--json", "hello").out.splitlines()]
    assert [event["sequence"] for event in events] == [str(number) for number in range(1, len(events) + 1)]
    assert "".join(event["textDelta"]["text"] for event in events if "textDelta" in event) == "You said: hello"
    assert events[-1]["completed"] == {}


def test_a_failed_turn_fails(oiab: Oiab) -> None:
    ended = oiab("ask", "fail")
    assert (ended.code, ended.out) == (1, "I try.\n")
    assert "did not accept its key" in ended.err
    assert "oiab provider update" in ended.err


def test_what_nobody_permits_is_refused(oiab: Oiab) -> None:
    ended = oiab("ask", "ask rm x")
    assert ended.code == 0
    assert ended.out.startswith("Then not: Nobody was there")
    assert "--yes permits" in ended.err
    assert oiab("ask", "--yes", "ask rm x").out == "Done as permitted.\n"


def test_an_interrupt_aborts_the_turn(oiab: Oiab) -> None:
    with oiab.start("ask", "wait") as process:
        assert process.stdout is not None
        assert process.stdout.read(7) == "Waiting"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == "\n"
    assert "Aborted." in err
    assert "agent.abort" in oiab("audit").out


def begun(oiab: Oiab) -> tuple[subprocess.Popen[str], str]:
    """A session with a turn that runs until it is aborted."""
    running = oiab.start("ask", "wait")
    end = time.monotonic() + 20
    while not (found := json.loads(oiab("sessions", "list", "--json").out)) or not found[0]["activeTurnId"]:
        assert time.monotonic() < end
    return running, found[0]["sessionId"]


def test_says_something_into_the_turn_that_runs_and_then_stops_it_for_something_else(oiab: Oiab) -> None:
    running, session = begun(oiab)
    steering = oiab.start("ask", "--session", session, "--steer", "to the left")
    assert steering.stderr is not None
    assert "\u203a to the left" in steering.stderr.readline()
    done = oiab("ask", "--session", session, "--interrupt", "now")
    assert (done.code, done.out) == (0, "You said: now\n")
    assert "1 before it" in done.err
    assert steering.wait(20) == 130
    assert running.wait(20) == 130
    for process in (running, steering):
        process.communicate()


@pytest.mark.parametrize(
    "arguments",
    [("--steer", "x"), ("--session", "0198c0de-0000-7000-8000-000000000001", "--steer", "--interrupt", "x")],
)
def test_steering_needs_a_session_and_one_intent(lonely: Oiab, arguments: tuple[str, ...]) -> None:
    assert lonely("ask", *arguments).code == 2


def test_streams_as_it_comes(oiab: Oiab) -> None:
    with oiab.start("ask", "slow 40") as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == "word0"
        assert process.poll() is None
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("ask",), 2),
        (("ask", "x", "--model", "nonsense"), 2),
        (("ask", "x", "--session", "nonsense"), 2),
        (("nonsense",), 2),
        (("audit", "--since", "yesterday"), 2),
        (("chat",), 2),
        (("provider", "add", "nonsense"), 2),
        (("provider", "add", "azure"), 2),
        (("provider", "add", "anthropic"), 2),
        (("provider", "update", "demo"), 2),
        (("provider", "remove", "demo", "--yes"), 1),
        (("provider", "remove", "nobody", "--yes"), 1),
        (("sessions", "delete", "00000000-0000-7000-8000-00000000dead", "--yes"), 1),
    ],
)
def test_refuses_plainly(oiab: Oiab, arguments: tuple[str, ...], code: int) -> None:
    ended = oiab(*arguments)
    assert ended.code == code
    assert ended.out == ""
    assert 0 < len(ended.err) < 400


def test_says_that_no_box_answers(lonely: Oiab) -> None:
    for arguments in (("ask", "hello"), ("sessions", "list"), ("runtime", "status")):
        ended = lonely(*arguments)
        assert (ended.code, ended.out) == (3, "")
        assert "Start it: oiab up" in ended.err


def test_says_that_the_key_is_wrong(oiab: Oiab) -> None:
    ended = oiab("sessions", "list", ORGINABOX_API_KEY="other")
    assert ended.code == 4
    assert "The key in ORGINABOX_API_KEY is wrong" in ended.err
    assert oiab("sessions", "list", ORGINABOX_API_KEY="").code == 4


def test_an_address_that_is_none_is_wrong_usage(oiab: Oiab) -> None:
    assert oiab("sessions", "list", OIAB_URL="ftp://x").code == 2


def test_sessions(oiab: Oiab) -> None:
    assert "No sessions yet. Say something: oiab ask" in oiab("sessions", "list").err
    oiab("ask", "one")
    oiab("ask", "two")
    rows = [line.split("\t") for line in oiab("sessions", "list").out.splitlines()]
    assert [row[1] for row in rows] == ["two", "one"]
    assert oiab("sessions", "rename", rows[0][0], "second").code == 0
    assert oiab("sessions", "list", "--limit", "1").out.split("\t")[1] == "second"
    assert oiab("sessions", "delete", rows[0][0], stdin="n\n").code == 1
    assert oiab("sessions", "delete", rows[0][0], "--yes").code == 0
    assert len(oiab("sessions", "list").out.splitlines()) == 1


def test_the_policy_of_a_session_is_told_and_said(oiab: Oiab) -> None:
    oiab("ask", "one")
    session = oiab("sessions", "list").out.split("\t")[0]
    told = oiab("sessions", "policy", session)
    assert (told.code, told.out) == (0, "queue\n")
    assert "What you say while a turn runs waits until it has ended." in told.err
    said = oiab("sessions", "policy", session, "steer")
    assert said.out == "steer\n"
    assert "goes into it" in said.err
    assert json.loads(oiab("sessions", "policy", session, "interrupt", "--json").out)["busyPolicy"] == (
        "BUSY_POLICY_INTERRUPT"
    )
    assert oiab("sessions", "policy", session).out == "interrupt\n"
    assert oiab("sessions", "list").out.rstrip().split("\t")[3] == "interrupt"
    assert oiab("sessions", "policy", session, "shout").code == 2
    mistyped = oiab("sessions", "policy", "steer")
    assert (mistyped.code, mistyped.err) == (2, "That is no id of a session. List yours: oiab sessions list\n")
    assert oiab("jobs", "show", "1").err == "That is no id of a job. List them: oiab jobs list\n"
    unknown = oiab("sessions", "policy", "00000000-0000-7000-8000-00000000dead", "steer")
    assert (unknown.code, "oiab sessions list" in unknown.err) == (1, True)


def test_providers_and_the_runtime(oiab: Oiab) -> None:
    status = oiab("runtime", "status")
    assert "demo/smollm2-135m" in status.out
    assert "demo model" in status.err
    added = oiab("provider", "add", "anthropic", "--model", "m1", "--model", "m2", ANTHROPIC_API_KEY="sk-secret")
    assert added.code == 0
    assert "With the key in ANTHROPIC_API_KEY." in added.err
    assert "oiab runtime apply" in added.err
    assert "sk-secret" not in added.out + added.err
    assert "Changes are staged" in oiab("runtime", "status").err
    applied = oiab("runtime", "apply")
    assert "anthropic/m1" in applied.out
    assert "demo model" not in applied.err
    assert "Nothing had changed." in oiab("runtime", "apply").err
    assert json.loads(oiab("runtime", "status", "--json").out)["defaultModel"] == {
        "providerId": "anthropic",
        "modelId": "m1",
    }
    assert oiab("provider", "update", "anthropic", "--default-model", "m2").code == 0
    assert oiab("provider", "update", "anthropic", "--key", OIAB_PROVIDER_KEY="sk-other").code == 0
    kept = json.loads(oiab("provider", "list", "--json").out)[0]
    assert (kept["providerId"], kept["models"], kept["defaultModel"]) == ("anthropic", ["m1", "m2"], "m2")
    again = oiab("provider", "add", "anthropic", ANTHROPIC_API_KEY="sk-secret")
    assert again.code == 1
    assert "oiab provider update anthropic" in again.err
    assert "anthropic\tanthropic\tm1, m2*\tno\tyes\t-" in oiab("provider", "list").out
    assert oiab("provider", "remove", "anthropic", "--yes").code == 0


def test_a_provider_without_a_key(oiab: Oiab) -> None:
    address = ("--base-url", "http://10.0.0.5:8000/v1")
    assert oiab("provider", "add", "openai-compatible", "--name", "lab", *address, "--model", "q").code == 0
    assert oiab("provider", "add", "ollama", "--model", "l").code == 0
    assert [row["hasApiKey"] for row in json.loads(oiab("provider", "list", "--json").out)] == [False, False, False]


def test_asks_a_model_by_name(oiab: Oiab) -> None:
    started = json.loads(oiab("ask", "--json", "--model", "demo/other/name", "x").out.splitlines()[0])["started"]
    assert started == {"providerId": "demo", "modelId": "other/name"}


def test_audit(oiab: Oiab) -> None:
    assert "No records yet." in oiab("audit").err
    oiab("ask", "hello")
    rows = [line.split("\t") for line in oiab("audit").out.splitlines()]
    assert [row[1] for row in rows] == ["agent.prompt", "agent.session_create"]
    assert rows[0][4] == "cli"
    assert "No records fit." in oiab("audit", "--action", "admin.*").err
    assert len(json.loads(oiab("audit", "--action", "agent.*", "--since", "1h", "--limit", "1", "--json").out)) == 1


def test_the_proof_of_the_audit_log(oiab: Oiab, tmp_path: Path) -> None:
    assert "Nothing was signed yet." in oiab("audit", "checkpoints").err
    oiab("ask", "hello")
    assert oiab("audit", "list", "--limit", "1").out.split("\t")[1] == "agent.prompt"
    assert oiab("audit", "export").out == "agent.session_create,1\nagent.prompt,1\n"
    assert "Wrote" in oiab("audit", "export", "--format", "chain", "-o", str(tmp_path / "a.jsonl")).err
    assert (tmp_path / "a.jsonl").read_text() == "agent.session_create,3\nagent.prompt,3\n"
    whole = oiab("audit", "verify", "--full")
    assert (whole.code, whole.err) == (0, "Whole: 2 records and 0 checkpoints verified; 2 records are signed.\n")
    assert oiab("audit", "checkpoints").out.endswith("\t2\troot=\n")
    assert oiab("audit", "key").out == "origin+00000000+AQ==\n"
    assert oiab("audit", "erase", "0198c0de-0000-7000-8000-000000000001", "--yes").err == "Erased in 2 records.\n"
    for words in (("audit",), ("audit", "export"), ("audit", "verify")):
        assert "oiab audit" in oiab(*words, "--help").out


def test_jobs(oiab: Oiab) -> None:
    assert "No jobs yet." in oiab("jobs", "list").err
    assert "No job is dead." in oiab("jobs", "dead").err
    oiab("ask", "hello")
    oiab("ask", "fail")
    failed, done = [line.split("\t") for line in oiab("jobs", "list").out.splitlines()]
    assert (failed[1:4], done[1:4]) == (["agent-turn", "dead", "1/20"], ["agent-turn", "completed", "1/20"])
    session = failed[5].removeprefix("session:")
    assert oiab("jobs", "list", "--state", "dead", "--session", session).out.split("\t")[0] == failed[0]
    assert "No jobs fit." in oiab("jobs", "list", "--state", "ready").err
    shown = oiab("jobs", "show", failed[0]).out
    assert "state      dead" in shown
    assert "last error it failed" in shown
    assert json.loads(oiab("jobs", "show", failed[0], "--json").out)["state"] == "JOB_STATE_DEAD"
    dead = oiab("jobs", "dead")
    assert dead.out == f"{failed[0]}\tagent-turn\t1\tit failed\n"
    assert "oiab jobs retry" in dead.err
    assert "It is ready again." in oiab("jobs", "retry", failed[0]).err
    refused = oiab("jobs", "retry", done[0])
    assert refused.code == 1
    assert f"oiab jobs show {done[0]}" in refused.err
    assert "Nothing to cancel: it is completed." in oiab("jobs", "cancel", done[0]).err
    unknown = oiab("jobs", "show", "00000000-0000-7000-8000-00000000dead")
    assert (unknown.code, "oiab jobs list" in unknown.err) == (1, True)


def test_the_keyring(oiab: Oiab) -> None:
    shown = oiab("keyring", "status")
    assert shown.out == ("runtime       file:01234567\nk0000000000000001\tactive\t3\tjust now\tfile:0badcafe\n")
    assert "oiab keyring rotate" in shown.err
    assert "oiab keyring rewrap" in shown.err
    assert "3 secrets sealed with k0000000000000002, 1 keys destroyed" in oiab("keyring", "rotate").err
    assert oiab("keyring", "rewrap").code == 0
    shown = oiab("keyring", "status")
    assert shown.out.endswith("k0000000000000002\tactive\t3\tjust now\tas above\n")
    assert shown.err == ""
    failed = oiab("keyring", "rewrap")
    assert failed.code == 1
    assert "OIAB_KEYRING_PREVIOUS" in failed.err
    assert json.loads(oiab("keyring", "status", "--json").out)[0]["dataKeys"][0]["secrets"] == 3


def test_the_queue(oiab: Oiab) -> None:
    assert "Nothing waits, runs or is dead." in oiab("queue", "stats").err
    oiab("ask", "hello")
    assert "oiab queue resume agent-turn" in oiab("queue", "pause", "agent-turn").err
    assert oiab("queue", "stats").out == "agent-turn\t0\t-\t0\t0\t0\t0\tyes\n"
    assert "no jobs of the kind nonsense" in oiab("queue", "stats", "nonsense").err
    assert "Resumed." in oiab("queue", "resume").err
    assert [kind["paused"] for kind in json.loads(oiab("queue", "stats", "--json").out)] == [False]


def test_the_share_of_the_queue(oiab: Oiab) -> None:
    assert "at most 4 at once" in oiab("queue", "share", "--at-once", "4").err
    assert "Weight 2, as many at once as the workers take" in oiab("queue", "share", "--weight", "2").err
    assert oiab("queue", "share", "--json").out == "{}\n"
    assert oiab("queue", "share", "--weight", "0").code == 2


def test_help_of_a_group_teaches(lonely: Oiab) -> None:
    """The commands that the help shows are commands that there are."""
    for group in ("jobs", "queue", "sessions"):
        shown = lonely(group, "--help").out
        examples = [line.split() for line in shown.splitlines() if line.strip().startswith(f"oiab {group} ")]
        assert len(examples) > 3
        for example in examples:
            assert lonely(group, example[2], "--help").code == 0


def test_says_its_version(lonely: Oiab) -> None:
    assert lonely("--version").out.startswith("oiab ")


def test_a_closed_pipe_is_no_failure_of_ours(oiab: Oiab) -> None:
    command = f"{sys.executable} -m gateways.chat ask 'slow 30' | head -c 5"
    done = subprocess.run(
        ["bash", "-c", command],
        env=dict(oiab.environ),
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == "word0"
    assert "Traceback" not in done.stderr
    assert os.environ.get("ORGINABOX_API_KEY") != KEY
