"""Every named query fits the migrated schema, and reads no table whole that grows."""

import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from services.kit.queries import load_queries
from tests.postgres import as_service

FILES = sorted(Path("services").glob("*/*queries.sql"))
_PARAM = re.compile(r"%\(\w+\)[sbt]")


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_query_can_be_planned(file: Path, database: Callable[..., str]) -> None:
    room, queries = file.parent, load_queries(file)
    assert queries
    # As the system's login, which may do all that its service does: a table that it has no right to is found here.
    with psycopg.connect(
        as_service(database(room.name), room.name).system, options=f"-c search_path={room.name}"
    ) as connection:
        for name, query in queries.items():
            uncast = re.findall(r"%\(\w+\)[sbt](?!::)", query)
            assert not uncast, f"{name} has parameters without a type: {uncast}"
            # With every parameter NULL the planner still has to know each table, column, operator and type.
            connection.execute(f"EXPLAIN {_PARAM.sub('NULL', query)}".encode())
