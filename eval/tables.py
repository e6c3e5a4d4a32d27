"""What pandas lets pass in the text of a CSV: a column that stands there twice, and rows that were cut short.

Takes the bytes of a table; reads and writes nothing.

    repeated_name(content)                          "score", or None
    short_row(content, columns=3, rows=10)          (line 7, 2 cells), or None
"""

import csv
import io
import re

import pandas as pd


def repeated_name(content: bytes) -> str | None:
    """The first name of the header that stands there twice, of which pandas would call the second NAME.1. Any number of columns may have none."""
    header = pd.read_csv(io.BytesIO(content), header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
    twice = header[header.duplicated() & (header != "")]
    return twice.iloc[0] if len(twice) else None


def short_row(content: bytes, columns: int, rows: int) -> tuple[int, int] | None:
    """The line and the cells of the first row that has fewer cells than the header; `rows` are those that pandas found below it.

    Pandas has refused rows with more cells, so that none has fewer where all commas are there. Only where they are not is the text
    read again, row by row.
    """
    commas = (re.sub(rb'"[^"]*"', b"", content) if b'"' in content else content).count(b",")
    if commas == (columns - 1) * (rows + 1):
        return None
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    rows = (row for row in lines if len(row) > 1 or "".join(row).strip())  # pandas passes over blank lines
    return next(((lines.line_num, len(row)) for row in rows if len(row) < columns), None)
