"""The reference tells of all that there is, and is what the contracts, the command line and the settings say now."""

import subprocess
import sys
from pathlib import Path

import pytest
from buf.validate import validate_pb2

from docs.generator.__main__ import read_subject
from docs.generator.contract import Contract
from docs.generator.pages import Subject, make_pages
from docs.generator.refusals import read_refusals
from docs.generator.rules import RuleUntold, is_required, rules_of
from tests.docs.examples import PAGES, ROOT


@pytest.fixture(scope="module")
def subject() -> Subject:
    """All that the reference tells of."""
    return read_subject()


@pytest.fixture(scope="module")
def made(subject: Subject) -> dict[str, str]:
    """The pages as they would be written now."""
    return make_pages(subject)


def text_of(made: dict[str, str]) -> str:
    """All pages in one."""
    return "\n".join(made.values())


def test_what_is_committed_is_what_would_be_written(made: dict[str, str]) -> None:
    there = {path.name: path.read_text() for path in (PAGES / "reference").glob("*.md")}
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    assert not stale, "run `make docs`"


def test_it_is_the_same_from_anywhere(tmp_path: Path) -> None:
    check = (sys.executable, "-m", "docs.generator", "--check")
    subprocess.run(check, check=True, cwd=tmp_path, env={"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)})


def test_nothing_of_this_machine_is_in_it(made: dict[str, str]) -> None:
    assert str(ROOT) not in text_of(made)
    assert str(Path.home()) not in text_of(made)


def test_every_method_is_told_with_its_policy(subject: Subject, made: dict[str, str]) -> None:
    methods = list(subject.contract.methods)
    assert len(methods) > 40
    for method in methods:
        assert f"`{method.full_name}`" in text_of(made)
        assert f".{method.name}](" in made["policy.md"]
        assert method.policy.access in {"public", "user", "internal"}
        for path in method.paths:
            assert f"`{path}`" in made["policy.md"]


def test_every_reason_is_told_with_a_code_and_an_example(subject: Subject, made: dict[str, str]) -> None:
    refusals = read_refusals(subject.contract)
    assert len(refusals) > 40
    for refusal in refusals:
        assert f"### {refusal.name}\n" in made["errors.md"]
        assert f'"ERROR_REASON_{refusal.name}"' in refusal.example
        assert refusal.codes or refusal.in_turn


def test_a_refusal_names_the_methods_that_answer_with_it(subject: Subject) -> None:
    found = {refusal.name: refusal for refusal in read_refusals(subject.contract)}
    assert [method.name for method in found["INBOX_FULL"].methods] == ["Prompt"]
    assert found["INBOX_FULL"].status == "429"
    assert found["REQUEST_TOO_LARGE"].status == "413"
    assert found["SANDBOX_LOST"].in_turn
    assert not found["SANDBOX_LOST"].codes


def test_everything_in_the_contract_has_a_comment(subject: Subject) -> None:
    assert not sorted(untold(subject.contract))


def untold(contract: Contract) -> set[str]:
    """What has no comment."""
    found: set[str] = set()
    for file in contract.files:
        told = [(file.path, file.text), *((service.full_name, service.text) for service in file.services)]
        told += [(message.full_name, message.text) for message in file.messages]
        told += [(f"{m.full_name}.{field.name}", field.text) for m in file.messages for field in m.fields]
        told += [(f"{enum.full_name}.{value.name}", value.text) for enum in file.enums for value in enum.values]
        found |= {name for name, text in told if not text.body.endswith((".", "…"))}
    return found | {method.full_name for method in contract.methods if not method.text.body}


def test_every_command_is_told_with_what_it_is_for(subject: Subject, made: dict[str, str]) -> None:
    paths = {command.path for command in subject.commands}
    assert {"oiab up", "oiab ask", "oiab chat", "oiab provider add", "oiab runtime apply", "oiab audit"} <= paths
    for command in subject.commands:
        assert command.text, f"{command.path} has no help"
        for parameter in (*command.arguments, *command.options):
            assert parameter.text, f"{command.path} {parameter.spelling} has no help"
    assert "anthropic" in made["cli.md"]


def test_every_setting_is_told_with_what_it_is_for(subject: Subject) -> None:
    settings = [setting for group in subject.settings for setting in group.settings]
    assert {"OIAB_PORT", "OIAB_DATABASE_URL", "ORGINABOX_API_KEY"} <= {setting.variable for setting in settings}
    assert not [setting.variable for setting in settings if not setting.text]


def test_rules_are_told_in_words() -> None:
    string = validate_pb2.FieldRules(string=validate_pb2.StringRules(min_len=1, max_len=200))
    assert rules_of(string) == ["not empty", "at most 200 characters"]
    assert is_required(string)
    optional = validate_pb2.FieldRules(
        string=validate_pb2.StringRules(uuid=True), ignore=validate_pb2.IGNORE_IF_ZERO_VALUE
    )
    assert rules_of(optional) == ["empty, or a UUID"]
    assert not is_required(optional)
    number = validate_pb2.FieldRules(int32=validate_pb2.Int32Rules(gte=-100, lte=100))
    assert rules_of(number) == ["at least -100", "at most 100"]
    items = validate_pb2.FieldRules(
        repeated=validate_pb2.RepeatedRules(
            max_items=64, items=validate_pb2.FieldRules(string=validate_pb2.StringRules(pattern="^a$"))
        )
    )
    assert rules_of(items) == ["each matches `^a$`", "at most 64 items"]


def test_a_rule_without_words_is_not_passed_over() -> None:
    with pytest.raises(RuleUntold, match=r"string\.ipv4"):
        rules_of(validate_pb2.FieldRules(string=validate_pb2.StringRules(ipv4=True)))
