"""A kind of message in the language of its reader, and the check at start-up that every template can be filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from inbox.errors import PermanentError
from settings import Settings, SettingsError
from tasks.notifications.kinds import KINDS, allowed_names
from tasks.notifications.localize import Value, localize
from tasks.notifications.templates import TEMPLATES, Rendered, find_template, names_in, read_template, render

FOOTER, LAYOUT = "footer", "layout.html"
LAYOUT_NAMES = {"language", "subject", "body", "footer"}
NAMES = allowed_names()


def render_message(
    settings: Settings, template: str, locales: Sequence[str], values: Mapping[str, Value]
) -> tuple[Rendered, str]:
    """The message in the first of these locales that has a template, and that locale.

    Raises PermanentError for a template that is not UTF-8 or uses an unknown name.
    """
    path, locale = find_template(settings, template, locales)
    known = {"business": settings.business_name, "support": settings.support_email, "portal": settings.portal_url}
    is_for_customer = "business" in NAMES.get(template, ())
    texts = dict.fromkeys(NAMES.get(template, ()), "") | {name: localize(one, locale) for name, one in values.items()}
    if not is_for_customer:
        texts = {name: one or "not known" for name, one in texts.items()}
    footer = read_template(find_template(settings, FOOTER, [locale])[0]) if is_for_customer else ""
    try:
        layout = _layout(settings.templates)
        return render(read_template(path), texts | known, footer=footer, layout=layout, language=locale), locale
    except (KeyError, ValueError):
        raise PermanentError(f"{path.parent.name}/{path.name} may use only the $names of its message") from None


def check_templates(settings: Settings) -> None:
    """Raise SettingsError for a template in TEMPLATES that cannot be filled in, and an unknown kind in MESSAGES_OFF.

    A template of another name than ours belongs to a handler of the user's, and its names are not known here.
    """
    own = Path(settings.templates) if settings.templates else TEMPLATES
    for path in sorted((*own.rglob("*.md"), *own.rglob("*.txt"), *own.glob(LAYOUT))):
        allowed = LAYOUT_NAMES if path.name == LAYOUT else NAMES.get(path.stem)
        if problem := _problem(path, allowed):
            raise SettingsError(f"TEMPLATES: {path.relative_to(own)} {problem}")
    kinds = {*KINDS, *NAMES, *(path.stem for path in own.rglob("*.md"))}
    if unknown := sorted(set(settings.messages_off) - kinds):
        raise SettingsError(
            f"MESSAGES_OFF names {unknown[0]}; it must name kinds of messages: {', '.join(sorted(KINDS))}"
        )


def _problem(path: Path, allowed: set[str] | None) -> str:
    """What is wrong with a template; "" if nothing is."""
    try:
        text = read_template(path)
        unknown = sorted(names_in(text) - allowed) if allowed is not None else []
    except (PermanentError, ValueError) as error:
        return f"cannot be read: {error}"
    if path.name != LAYOUT and path.stem != FOOTER and not text.partition("\n")[2].strip():
        return "must have a subject in its first line, and below it a body"
    return (
        f"uses ${unknown[0]}; it may use {', '.join(f'${name}' for name in sorted(allowed or ()))}" if unknown else ""
    )


@cache
def _layout(folder: str) -> str:
    """The frame of the HTML: the one in TEMPLATES, or else ours."""
    own = Path(folder) / LAYOUT
    return read_template(own if folder and own.is_file() else TEMPLATES / LAYOUT)
