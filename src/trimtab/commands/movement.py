"""Subcommand movement: how far training moved an encoder."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .options import EncoderOption, Json, RunFolder
from .output import check_ending, print_json, say


def movement(
    run: RunFolder,
    # This option hides the subcommand of its name, which is not called in here.
    fisher: Annotated[
        Path | None, typer.Option(help="Information measured before training (trimtab fisher): was this foreseen?")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Default: RUN/movement.png.")] = None,
    encoder: EncoderOption = None,
    as_json: Json = False,
) -> None:
    """Show how far training moved each kind and layer of the encoder."""
    from ..changes.delta_header import header_of
    from ..encoders.places import find_base

    check_ending(plot, "--plot", ".png", ".svg", ".pdf")
    if fisher is not None and not fisher.is_file():
        raise InputError(
            f"no Fisher information in {fisher}: there is no such file. Name what trimtab fisher has written."
        )
    place = find_base(header_of(run)["base"], encoder)
    from ..changes.fisher import Fisher
    from ..encoders.encoder import load
    from ..pages.heatmap import draw_heat_map, means_by_place
    from ..studies.movement import movement as movement_of
    from .terminal import foreseen_table, movement_tables

    # No rows are read: the delta is compared with the pretrained values, which it was trained from.
    found = movement_of(run, load(place))
    seen = None if fisher is None else found.foreseen_by(Fisher.load(fisher))
    if not as_json:
        movement_tables(found)
        if seen is not None:
            foreseen_table(seen)
    # The picture is drawn in any case, --json or not.
    heading = f"Movement: {found.notes['task']}, {found.notes['method']}"
    places = means_by_place(found.parts, found.sums())
    picture = draw_heat_map(*places, heading, "mean absolute change", plot or Path(run) / "movement.png")
    say(f"heat map: {picture}")
    result = {"by_kind": found.by("kind"), "by_layer": found.by("layer"), "plot": str(picture)}
    # `foreseen` is there only where information was given to judge.
    print_json(result | ({} if seen is None else {"foreseen": seen}), as_json)
