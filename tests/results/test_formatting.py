"""The words of numbers: they read as a person would write them."""

import math

import pytest

from trimtab.results import formatting


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (formatting.score(0.9123), "0.912"),
        (formatting.score(0.0), "0.000"),
        (formatting.score(-0.4), "−0.400"),
        (formatting.score(0.00012), "1.2e−04"),
        (formatting.score(123.456), "123.5"),
        (formatting.score(23456.7), "23,457"),
        (formatting.score(None), "undefined"),
        (formatting.score(math.nan), "undefined"),
        (formatting.signed(0.688), "+0.688"),
        (formatting.signed(0.0), "±0"),
        (formatting.share(9984 / 22713216), "0.044%"),
        (formatting.share(0), "0%"),
        (formatting.share(1e-9), "<0.001%"),
        (formatting.share(0.0786), "7.9%"),
        (formatting.share(0.43), "43%"),
        (formatting.share(0.9999), "99.9%"),
        (formatting.share(1.0), "100%"),
        (formatting.share(0.1), "10%"),
        (formatting.share(0.01), "1%"),
        (formatting.size(43_112), "43.1 KB"),
        (formatting.size(999), "999 bytes"),
        (formatting.size(999_999), "1 MB"),
        (formatting.size(612_000_000), "612 MB"),
        (formatting.size(2_400_000_000), "2.4 GB"),
        (formatting.duration(0.84), "0.84 s"),
        (formatting.duration(12.34), "12.3 s"),
        (formatting.duration(59.97), "1 min 0 s"),
        (formatting.duration(72.4), "1 min 12 s"),
        (formatting.duration(7500), "2 h 5 min"),
        (formatting.compact(9984), "9,984"),
        (formatting.compact(147_840), "148K"),
        (formatting.compact(999_900), "1,000K"),
        (formatting.compact(22_713_216), "22.7M"),
        (formatting.label_text(1.7), "1.7"),
        (formatting.label_text(-3.76219), "−3.762"),
        (formatting.label_text("refund"), "refund"),
        (formatting.setting(3e-4), "0.0003"),
        (formatting.setting([0.9, True, None]), "0.9, yes, none"),
        (formatting.plain("macro_f1"), "macro F1"),
        (formatting.signed_alike(-0.012, -0.03, 0.0), ["−0.012", "−0.030", "+0.000"]),
        (formatting.signed_alike(-0.0001, 0.0, 0.0002), ["−1.0e−04", "±0", "+2.0e−04"]),
        (formatting.rough_duration(0.2), "1 s"),
        (formatting.rough_duration(89), "89 s"),
        (formatting.rough_duration(360), "6 min"),
        (formatting.rough_duration(9000), "2.5 h"),
        (formatting.tick(0.25, 0.25), "0.25"),
        (formatting.tick(-1500.0, 500.0), "−1,500"),
        (formatting.tick(2.5e6, 5e5), "2.5M"),
        (formatting.tick(0.0, 1e-9), "0"),
    ],
)
def test_numbers_read_as_a_person_would_write_them(made: object, expected: object) -> None:
    assert made == expected
