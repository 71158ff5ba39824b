"""The table that the subcommands are tried on, and its columns on the command line."""

from small import ANIMALS, first_animal, sentences

ODD = ("--text", "What they said", "--label", "Verdict")


FIT = ("fit", "ENCODER", "TABLE", "--text", "What they said", "--label", "Verdict", "--out", "OUT")


def animal_rows(count: int = 120) -> list[dict]:
    return [
        {"Id": i, "What they said": text, "Verdict": ANIMALS[first_animal(text)]}
        for i, text in enumerate(sentences(count, 3))
    ]


def bad_rows(change) -> list[dict]:
    rows = animal_rows(40)
    change(rows)
    return rows
