"""The page as text: the template in eval/page/ with its style, its script and the data that the script shows.

Reads eval/page/{report.html.jinja,report.css,report.js}. Writes nothing. Same values, same text.

    render({...})       ->  "<!DOCTYPE html>..."

The browser runs this one script alone: the page's policy names its SHA-256. Data is escaped, and the script makes text of it.
"""

import base64
import hashlib
import json
from pathlib import Path

FOLDER = Path(__file__).parent


def render(values: dict) -> str:
    """The page of `eval.report.contents`, `data` being what the script shows (None: no script)."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "count": count, "duration": duration, "told": told}
    style, script = (Markup((FOLDER / name).read_text("utf-8")) for name in ("report.css", "report.js"))
    template = environment.get_template("report.html.jinja")
    return template.render(values, style=style, script=script, script_hash=sha256(script), data=Markup(inert(values["data"])))


def sha256(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def inert(data: dict | None) -> str:
    """JSON in ASCII without `<`, so that no text in it can end the element it stands in."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def absent(value: float | None) -> bool:
    """None, NaN and infinity are no figures."""
    return value is None or not abs(value) < 1e300


def number(value: float | None, digits: int = 3) -> str:
    return "–" if absent(value) else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    return "–" if absent(value) else f"{value:,.0f}"


def duration(seconds: float) -> str:
    if absent(seconds) or seconds < 60:
        return "–" if absent(seconds) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def told(value: object) -> str:
    """A value of a JSON file as text; an object as `key value, key value`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {told(part)}" for key, part in value.items()) or "none"
    if value is None or isinstance(value, float):
        return "–" if absent(value) else f"{value:.4g}"
    return str(value)
