"""What pandas lets pass in the text of a CSV: a column that stands there twice, and rows that were cut short.

    repeated_name(content)                          "image_id", or None
    short_rows(content, columns=3, rows=10)         {5: 7}, row 5 being line 7 of the file

Takes the bytes of a table; reads and writes nothing.
"""

import csv
import io
import re
from typing import Dict, Optional

import pandas as pd


def repeated_name(content: bytes) -> Optional[str]:
    """The first name of the header that stands there twice, of which pandas would call the second NAME.1. Any number of columns may have none."""
    header = pd.read_csv(io.BytesIO(content), header=None, nrows=1, dtype=str, keep_default_na=False, encoding="utf-8-sig").iloc[0]
    twice = header[header.duplicated() & (header != "")]
    return twice.iloc[0] if len(twice) else None


def short_rows(content: bytes, columns: int, rows: int) -> Dict[int, int]:
    """The lines of the rows, from 0, that have fewer cells than the header; `rows` is the number that pandas found below it.

    Pandas has refused rows with more cells, so that none has fewer where all commas are there. Only where they are not is the text
    read again, row by row.
    """
    commas = (re.sub(rb'"[^"]*"', b"", content) if b'"' in content else content).count(b",")
    if commas == (columns - 1) * (rows + 1):
        return {}
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))
    lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    told = ((lines.line_num, len(row)) for row in lines if len(row) > 1 or "".join(row).strip())  # pandas passes over blank lines
    return {row - 1: line for row, (line, cells) in enumerate(told) if cells < columns}
