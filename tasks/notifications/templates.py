"""Messages from templates: Markdown with $names, one file from which both the text and the HTML are made.

The first line of a template is the subject, the rest the body. A line of the body that uses a name without a value is
left out. Values are text, never Markdown. Templates in the folder TEMPLATES take precedence over the built-in ones.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt
from markdown_it.token import Token

from inbox.errors import PermanentError
from settings import Settings

TEMPLATES = Path(__file__).with_name("templates")
ENGLISH = "en"  # the language of the templates that are in no folder of a language
LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # becomes part of a path
PUNCTUATION = re.compile(
    r"([!-/:-@\[-`{-~])"
)  # what a backslash escapes: https://spec.commonmark.org/0.31.2/#backslash-escapes
STYLES = {
    "p": "margin:0 0 16px",
    "ul": "margin:0 0 16px;padding-left:24px",
    "a": "color:#1a5fb4",
    "button": "display:inline-block;padding:10px 20px;border-radius:6px;background:#1a5fb4;color:#ffffff;"
    "font-weight:600;text-decoration:none",
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message, ready to be sent: the same content as text and as HTML."""

    subject: str
    text: str
    html: str


def find_template(settings: Settings, name: str, locales: Sequence[str]) -> tuple[Path, str]:
    """The template for the first of these locales that has one, and that locale; else the one without a language.

    For de-AT these are de-AT/<name>.md and de/<name>.md. What the folder TEMPLATES has, in whatever language, is
    preferred to the built-in texts. A file .txt is read too: so they were called before.
    """
    tags = [tag for tag in (locale.replace("_", "-") for locale in locales) if LOCALE.fullmatch(tag)]
    for root in (*([Path(settings.templates)] if settings.templates else []), TEMPLATES):
        for tag in tags:
            if found := _find_file([root / folder for folder in _folders(tag)], name):
                return found, tag
        if found := _find_file([root], name):
            return found, ENGLISH
    return TEMPLATES / f"{name}.md", ENGLISH


def render(template: str, values: Mapping[str, str], *, footer: str = "", layout: str, language: str) -> Rendered:
    """Fill in a template and its footer. Raises KeyError for a name that `values` lacks, ValueError for a lone $."""
    subject, _, body = template.partition("\n")
    title = " ".join(Template(subject.strip()).substitute(values).split())
    tokens, end = (_parse(_fill(part, values)) for part in (body, footer))
    text = "\n\n".join(filter(None, (_to_text(tokens), _to_text(end))))
    page = {"language": language, "subject": html.escape(title), "body": _to_html(tokens), "footer": _to_html(end)}
    return Rendered(title, text, Template(layout).substitute(page))


def names_in(template: str) -> set[str]:
    """The names that a template uses. Raises ValueError for a lone $."""
    if not Template(template).is_valid():
        raise ValueError("a $ that no name follows must be written $$")
    return set(Template(template).get_identifiers())


def read_template(path: Path) -> str:
    """Raises PermanentError for a file that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise PermanentError(f"the template {path.parent.name}/{path.name} must be a file in UTF-8") from None


def _folders(tag: str) -> tuple[str, ...]:
    language = tag.partition("-")[0].lower()
    return (tag, language, "") if language == ENGLISH else (tag, language)


def _find_file(folders: Iterable[Path], name: str) -> Path | None:
    paths = (folder / f"{name}{end}" for folder in folders for end in (".md", ".txt"))
    return next((path for path in paths if path.is_file()), None)


def _fill(template: str, values: Mapping[str, str]) -> str:
    escaped = {name: PUNCTUATION.sub(r"\\\1", value) for name, value in values.items()}
    lines = [Template(line) for line in template.strip().splitlines()]
    return "\n".join(line.substitute(escaped) for line in lines if all(values[name] for name in line.get_identifiers()))


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"breaks": True, "html": False})


def _parse(markdown: str) -> list[Token]:
    return _markdown().parse(markdown)


def _to_html(tokens: list[Token]) -> str:
    for token in tokens:
        for part in (token, *(token.children or ())):
            if part.nesting == 1 and part.tag in STYLES:
                part.attrSet("style", STYLES["button" if part.tag == "a" and _is_alone(token) else part.tag])
    return str(_markdown().renderer.render(tokens, _markdown().options, {}))


def _is_alone(inline: Token) -> bool:
    """Whether a paragraph consists of one link: it becomes a button."""
    kinds = [part.type for part in inline.children or ()]
    return bool(kinds) and kinds[0] == "link_open" and kinds.index("link_close") == len(kinds) - 1


def _to_text(tokens: list[Token]) -> str:
    text, bullet, tight = "", "", False
    for token in tokens:
        if token.type == "list_item_open":
            bullet = "- "
        elif token.type == "paragraph_open":
            tight = token.hidden
        elif token.type.endswith("list_close"):
            text += "\n"
        elif token.type == "inline":
            text += bullet + _inline_text(token.children or []) + ("\n" if tight else "\n\n")
            bullet, tight = "", False
        elif token.type in ("fence", "code_block"):
            text += token.content.rstrip() + "\n\n"
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _inline_text(parts: list[Token]) -> str:
    """The text, with the address of each link behind it."""
    text, link = "", ""
    for part in parts:
        if part.type == "link_open":
            link = str(part.attrGet("href"))
        elif part.type == "link_close":
            text += "" if text.endswith(link.removeprefix("mailto:")) else f": {link}"
        elif part.type in ("softbreak", "hardbreak"):
            text += "\n"
        else:
            text += part.content
    return text
