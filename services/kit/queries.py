"""Named SQL: a `queries.sql` beside each store, read once."""

import re
from pathlib import Path
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(path: Path) -> dict[str, LiteralString]:
    """Read the queries of a file by name. A query begins with a line `-- name: <name>` and ends at the next."""
    _, *pieces = _NAME.split(path.read_text())
    names, texts = pieces[::2], pieces[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{path.name} names a query twice")
    # psycopg asks for literal SQL, to keep input out of it; a file of the repository is as literal as a constant.
    return {name: cast("LiteralString", text.strip()) for name, text in zip(names, texts, strict=True)}
