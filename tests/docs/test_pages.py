"""The pages hold together: links lead somewhere, examples are tried, and nothing is loaded from elsewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.examples import PAGES, ROOT, Example, as_script, examples, pages, split_output

SHOWN = [example for page in pages() for example in examples(page)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = Path(sys.executable).with_name("mkdocs")
    built = subprocess.run(
        (mkdocs, "build", "--strict", "--quiet", "--config-file", ROOT / "docs" / "mkdocs.yml", "--site-dir", folder),
        capture_output=True,
        text=True,
        check=False,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    assert (site / "reference" / "errors" / "index.html").exists()


def test_a_reader_needs_no_other_site(site: Path) -> None:
    loaded = re.compile(r'<(?:script|img|iframe|source)[^>]+src="(https?:)?//|<link[^>]+href="(https?:)?//|@import')
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text()), page


@pytest.mark.parametrize("example", SHOWN, ids=lambda example: example.place)
def test_an_example_is_tried_or_says_why_not(example: Example) -> None:
    assert example.runs or example.reason or example.test, f"{example.place} says not how it is tried"
    if example.test:
        assert_test_exists(example.test)


def test_every_test_that_is_named_exists() -> None:
    named = [name for page in pages() for name in re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", page.read_text())]
    assert len(named) > 15
    for name in named:
        assert_test_exists(name)


def assert_test_exists(name: str) -> None:
    """A test with that name is there."""
    file, _, test = name.partition("::")
    assert (ROOT / file).is_file(), f"there is no {file}"
    assert not test or f"def {test}(" in source(file), f"there is no {name}"


@cache
def source(file: str) -> str:
    """The text of a file."""
    return (ROOT / file).read_text()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "proto/README.md"])
def test_documents_at_the_top_link_to_what_is_there(document: str) -> None:
    path = ROOT / document
    for link in links(path):
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{document} links to {link}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{document} links to {link}"


def links(page: Path) -> Iterator[str]:
    """The links of a document to files of this repository."""
    for link in re.findall(r"(?:\]\(|src=\")([^)\"\s]+)", page.read_text()):
        if not re.match(r"[a-z]+:", link):
            yield link


def anchors(page: Path) -> set[str]:
    """The headings of a page as their links name them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_no_page_tells_of_the_machine_it_was_written_on() -> None:
    for page in (*pages(), *PAGES.rglob("*.md")):
        assert not re.search(r"/work/|/root/", page.read_text()), page


def test_an_example_is_read_with_how_it_is_tried(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n<!-- run: prints /a b/ -->\n```bash\necho a b\n```\n\n```text\nno\n```\n\n```bash\necho c\n```\n"
    )
    first, second = examples(page)
    assert (first.runs, first.prints, first.text, first.line) == (True, "a b", "echo a b\n", 4)
    assert second.how == ""
    done = subprocess.run(("bash", "-c", as_script([first, second])), capture_output=True, text=True, check=True)
    assert split_output(done.stdout) == {0: "a b\n", 1: "c\n"}
