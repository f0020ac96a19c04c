"""Migrations: each once, in order, whole or not at all, by one process at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from services.kit.migrate import MigrationChanged, migrate
from tests.postgres import as_owner


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name.lstrip('m')}.sql").write_text(text)


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'room'").fetchall()
    return {name for (name,) in rows} - {"migration"}


def test_files_are_applied_once_and_in_order(database: Callable[..., str], tmp_path: Path) -> None:
    url = database()
    write(
        tmp_path,
        m0001_one="CREATE TABLE one (a int); INSERT INTO one VALUES (1)",
        m0002_two="ALTER TABLE one RENAME TO two",
    )
    migrate(as_owner(url), "room", tmp_path)
    migrate(as_owner(url), "room", tmp_path)
    assert tables(url) == {"two"}


def test_a_file_that_fails_leaves_nothing_and_works_when_it_is_mended(
    database: Callable[..., str], tmp_path: Path
) -> None:
    url = database()
    write(tmp_path, m0001_one="CREATE TABLE one (a int)", m0002_two="CREATE TABLE two (a int); SELECT 1/0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(as_owner(url), "room", tmp_path)
    assert tables(url) == {"one"}
    write(tmp_path, m0002_two="CREATE TABLE two (a int)")
    migrate(as_owner(url), "room", tmp_path)
    assert tables(url) == {"one", "two"}


def test_a_file_that_was_applied_may_not_change(database: Callable[..., str], tmp_path: Path) -> None:
    url = database()
    write(tmp_path, m0001_one="CREATE TABLE one (a int)")
    migrate(as_owner(url), "room", tmp_path)
    write(tmp_path, m0001_one="CREATE TABLE one (a bigint)")
    with pytest.raises(MigrationChanged, match=r"0001_one.sql was changed"):
        migrate(as_owner(url), "room", tmp_path)


def test_many_processes_may_start_at_once(database: Callable[..., str], tmp_path: Path) -> None:
    url = database()
    write(tmp_path, m0001_one="CREATE TABLE one (a int); SELECT pg_sleep(0.2)", m0002_two="CREATE TABLE two (a int)")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: migrate(as_owner(url), "room", tmp_path), range(8)))
    assert tables(url) == {"one", "two"}
