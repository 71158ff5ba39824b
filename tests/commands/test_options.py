"""Options that are made of the fields of dataclasses."""

from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from trimtab.commands.options import NOTHING, Given, OptionsOf, subcommand
from trimtab.results.recipe import Settings
from trimtab.tasks.reading import Reading, option_field


@dataclass(frozen=True)
class Sails:
    """Settings of a boat."""

    count: int = option_field(2, "How many.", ("hoist", "lower"))
    area: float | str | None = option_field(None, "Square metres, or auto.", ("hoist",))
    furled: bool = option_field(False, "Rolled up.", ("hoist",))
    sewn: bool = option_field(True, "With glued seams.", ("hoist",), names="--glued")
    colours: tuple[str, ...] = option_field((), "One; repeat for more.", ("hoist",), kind=list[str], convert=tuple)
    knots: float = 0.0  # no option


@dataclass(frozen=True)
class Boat(Sails):
    """A dataclass whose own fields only are meant."""

    name: str = option_field("", "Of the boat.", ("hoist",))


def called(arguments: str, made_of: type = Sails) -> Given:
    """What a subcommand `hoist` gets."""
    got: list[Given] = []

    def hoist(rope: str, how: Annotated[Given, OptionsOf(made_of)] = NOTHING) -> None:
        got.append({"rope": rope} | how)

    app = typer.Typer()
    app.command()(subcommand(hoist))
    found = CliRunner().invoke(app, arguments.split(), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return got[0]


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ("", {}),
        ("--count 0 --area auto", {"count": 0, "area": "auto"}),
        ("--furled", {"furled": True}),
        ("--no-furled", {"furled": False}),
        ("--glued", {"sewn": False}),
        ("--colours red --colours blue", {"colours": ("red", "blue")}),
    ],
)
def test_a_subcommand_gets_what_was_given_by_the_names_of_fields(arguments, given):
    assert called(f"hemp {arguments}") == {"rope": "hemp"} | given


def test_inherited_fields_and_those_of_other_subcommands_are_no_options():
    def lower(how: Annotated[Given, OptionsOf(Sails)] = NOTHING) -> None:
        pass

    assert [*subcommand(lower, threads=False).__annotations__] == ["count"]
    assert called("hemp --name Swift", Boat) == {"rope": "hemp", "name": "Swift"}


def test_every_setting_is_an_option_of_fit_and_every_reading_has_a_help():
    assert all("fit" in field.metadata["verbs"] and field.metadata["help"] for field in fields(Settings))
    assert all(field.metadata["verbs"] and field.metadata["help"] for field in fields(Reading))
