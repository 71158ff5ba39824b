"""Excel workbooks: the rows of the first sheet, as they would be in a CSV file."""

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape
from zipfile import ZipFile

import pytest

from trimtab.errors import InputError
from trimtab.tasks.read import read, read_rows
from trimtab.tasks.reading import Reading
from trimtab.tasks.tables import open_table

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def workbook(path: Path, sheet: str, shared: str = "", others: str = "", target: str = "worksheets/sheet1.xml") -> Path:
    """A workbook whose first sheet, "Data", has this XML inside sheetData."""
    with ZipFile(path, "w") as archive:
        sheets = f'<sheet name="Data" sheetId="1" r:id="rId1"/>{others}'
        archive.writestr(
            "xl/workbook.xml", f'<workbook {MAIN} xmlns:r="{RELATIONS}"><sheets>{sheets}</sheets></workbook>'
        )
        links = f'<Relationship Id="rId1" Target="{target}"/><Relationship Id="rId2" Target="worksheets/sheet2.xml"/>'
        archive.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{links}</Relationships>")
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData>{sheet}</sheetData></worksheet>")
        if shared:
            archive.writestr("xl/sharedStrings.xml", f"<sst {MAIN}>{shared}</sst>")
    return path


def rows_of_texts(rows: list[tuple[str, ...]]) -> str:
    cells = ("".join(f'<c t="inlineStr"><is><t>{escape(text)}</t></is></c>' for text in row) for row in rows)
    return "".join(f"<row>{row}</row>" for row in cells)


def rows_of(path: Path, **reading: Any) -> list[tuple[int, dict[str, Any]]]:
    return list(open_table(path, Reading(**reading)))


def test_a_workbook_is_read_as_its_csv_would_be(tmp_path: Path) -> None:
    rows = [("text", "label"), *((f"<day> {i} & more", "ab"[i % 2]) for i in range(20))]
    task = read(workbook(tmp_path / "days.xlsx", rows_of_texts(rows)), validation_share=0)
    assert (task.name, task.classes, len(task.train)) == ("days", ("a", "b"), 20)
    assert task.train.texts[0][3] == "<day> 3 & more"


def test_each_kind_of_cell_is_its_text(tmp_path: Path) -> None:
    shared = (
        "<si><t>text</t></si><si><r><t>rich </t></r><r><t>bold</t></r><rPh><t>not read</t></rPh></si>"
        '<si><t xml:space="preserve"> a_x000D_b</t></si>'
    )
    sheet = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="C1" t="str"><v>label</v></c></row>'
        '<row r="2"><c r="A2" t="s"><v>1</v></c><c r="C2"><v>3.0</v></c></row>'
        '<row r="3"><c r="A3" t="s"><v>2</v></c><c r="C3"><v>1.0000000000000001E-1</v></c></row>'
        '<row r="4"><c r="A4"/></row>'
        '<row r="7"><c r="A7" t="b"><v>1</v></c><c r="C7" t="e"><v>#N/A</v></c></row>'
    )
    assert rows_of(workbook(tmp_path / "a.xlsx", sheet, shared)) == [
        (2, {"text": "rich bold", "": "", "label": "3"}),
        (3, {"text": " a\rb", "": "", "label": "0.1"}),
        (7, {"text": "true", "": "", "label": ""}),
    ]


def test_columns_beyond_z_and_a_sheet_without_a_header(tmp_path: Path) -> None:
    sheet = '<row r="1"><c r="A1"><v>1</v></c><c r="AB1"><v>2</v></c></row>'
    ((number, row),) = rows_of(workbook(tmp_path / "a.xlsx", sheet, target="/xl/worksheets/sheet1.xml"), header=False)
    assert (number, len(row), row["column_1"], row["column_28"]) == (1, 28, "1", "2")


def test_other_sheets_are_named(tmp_path: Path) -> None:
    others = '<sheet name="Notes" sheetId="2" r:id="rId2"/>'
    path = workbook(tmp_path / "a.xlsx", rows_of_texts([("text", "label"), ("x", "y")]), others=others)
    assert open_table(path).notes == (f"{path}: read the sheet 'Data', and not 'Notes'",)
    assert read_rows(path).n_rows == 1


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    beside = workbook(tmp_path / "a.xlsx", rows_of_texts([("text", "label"), ("x", "y", "z")]))
    with pytest.raises(InputError, match="row 2: a cell in column 3, but the header names 2"):
        rows_of(beside)
    with pytest.raises(InputError, match="is empty"):
        open_table(workbook(tmp_path / "b.xlsx", ""))
    with pytest.raises(InputError, match="cannot be read as an Excel workbook"):
        rows_of(workbook(tmp_path / "c.xlsx", '<row><c t="s"><v>5</v></c></row>'))
    # What Excel writes with a password, and before 2007.
    (tmp_path / "d.xlsx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    with pytest.raises(InputError, match="without a password, or as CSV"):
        open_table(tmp_path / "d.xlsx")
