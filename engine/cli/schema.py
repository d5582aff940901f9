"""`probemill schema`: what a result row is, in the words of whoever is to read it."""

import click

from engine.cli.help import Command
from engine.results.dialects import DIALECTS


@click.command("schema", cls=Command)
@click.option(
    "--as", "dialect", type=click.Choice(list(DIALECTS)), default="json-schema", show_default=True, help="For whom."
)
def schema_command(dialect: str) -> None:
    """Print the schema of a result row.

    For programs that read rows or hold them in tables:

    \b
    json-schema   JSON Schema of an NDJSON line, lean or full
    arrow         the columns, as pyarrow shows them
    duckdb        SQL: a table, and a table function that reads NDJSON
    polars        a Python module with a pl.Schema
    spark         columns in DDL, for spark.read.schema and CREATE TABLE
    bigquery      the JSON list that bq takes
    clickhouse    SQL: a table

    docs/result.md says how to use them.
    """
    click.echo(DIALECTS[dialect]())
