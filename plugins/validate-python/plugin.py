"""Rejects click events that the rules do not allow: the twin of `plugins/validate`, in Python.

The contract is columnar, and that suits Python: a column is one list, and an interpreter's time goes into rows.
"""

import json

import wit_world
from componentize_py_types import Err
from wit_world.imports import host, types
from wit_world.imports.types import ColumnType_Int64, ColumnType_Text, Descriptor, Field, Parts, Processed, Rejection

REJECT = 2


def blocked_countries(config: str) -> set[str]:
    """The one setting. What is raised is shown to the person who wrote the configuration."""
    try:
        settings = json.loads(config or "{}")
    except ValueError as problem:
        raise Err(f"the configuration is not JSON: {problem}")
    if not isinstance(settings, dict):
        raise Err("expected an object")
    for name in settings:
        if name != "blocked_countries":
            raise Err(f"{name}: there is no such setting, only blocked_countries")
    countries = settings.get("blocked_countries")
    if not isinstance(countries, list) or not all(isinstance(country, str) for country in countries):
        raise Err("blocked_countries: expected a list of strings")
    return set(countries)


def texts(column: types.Column) -> list[str]:
    """The values of a packed column. The host has checked that each is UTF-8."""
    packed, start, values = column.data.value, 0, []
    for end in packed.ends:
        values.append(packed.data[start:end].decode())
        start = end
    return values


def reason(user_id: int, country: str, blocked: set[str]) -> tuple[str, str] | None:
    """Why an event is rejected: code and detail. This is the logic; all else is the contract."""
    if user_id < 0:
        return "negative_user_id", f"user_id is {user_id}"
    if country in blocked:
        return "blocked_country", f"country is {country}"
    return None


# What `start` readied. The exports get a new object for each call, so it can't be theirs.
blocked: set[str] = set()


class WitWorld(wit_world.WitWorld):
    """The component's exports."""

    def describe(self, config: str) -> Descriptor:
        blocked_countries(config)
        reads = [Field("/user_id", ColumnType_Int64(), True), Field("/country", ColumnType_Text(), True)]
        return Descriptor("validate-python", "0.1.0", reads, [], [], Parts(0), Parts(0), False, [], [])

    def start(self, config: str) -> None:
        global blocked
        blocked = blocked_countries(config)

    def process(self, rows: types.Batch) -> Processed:
        try:
            return processed(rows)
        except Exception as problem:
            # Without files there is no traceback to print: what is not logged here is lost in a trap.
            host.log(host.Level.ERROR, repr(problem))
            raise


def processed(rows: types.Batch) -> Processed:
    """What becomes of the rows."""
    verdicts, rejections = bytearray(rows.rows), []
    user_ids, countries = rows.columns
    for row, event in enumerate(zip(user_ids.data.value, texts(countries))):
        why = reason(*event, blocked)
        if why:
            verdicts[row] = REJECT
            rejections.append(Rejection(row, *why))
    return Processed(bytes(verdicts), rejections, [], None, None, None, None, [], None)
