"""Templates: Markdown with names, in the language of the reader, checked at start-up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbox.errors import PermanentError
from settings import SettingsError, load
from tasks.notifications.kinds import KINDS, allowed_names
from tasks.notifications.localize import Day, Money, Value, localize
from tasks.notifications.rendering import check_templates, render_message
from tasks.notifications.templates import TEMPLATES, find_template, names_in, render
from tests.support.searching import searching

RECEIPT: dict[str, Value] = {"amount": Money(1999, "eur"), "products": "course v1.5", "order": "a1B2c3D4"}
PAGE = Path(__file__).parents[4] / "docs/messages.md"


def made(template: str, **values: str) -> tuple[str, str]:
    """(text, html) of a template without frame."""
    found = render(f"Subject\n\n{template}", values, layout="$body", language="en")
    return found.text, found.html.replace("\n", "")


# --- Markdown -------------------------------------------------------------------------------------------------------


def test_a_line_with_a_name_without_a_value_is_left_out() -> None:
    assert made("One $a\nTwo $b\n\n[Pay]($link)\n\nThree", a="1", b="", link="")[0] == "One 1\n\nThree"


def test_a_link_alone_is_a_button_and_in_text_its_address_follows() -> None:
    text, page = made("[Pay now]($link)\n\nor [here]($link)", link="https://pay.example/?a=1&b=(2)#e_f")
    assert text == "Pay now: https://pay.example/?a=1&b=(2)#e_f\n\nor here: https://pay.example/?a=1&b=(2)#e_f"
    assert page.count('href="https://pay.example/?a=1&amp;b=(2)#e_f"') == 2
    assert page.count("inline-block") == 1


@pytest.mark.parametrize(
    "value",
    [
        "*a*",
        "<script>x</script>",
        "[a](https://evil.example)",
        "a & b",
        "1. one",
        "# one",
        "a `b` \\ c",
        "$amount",
        "!~|",
    ],
)
def test_a_value_is_text_and_never_markdown(value: str) -> None:
    text, page = made("$name", name=value)
    assert text == value
    assert "<script" not in page
    assert "href" not in page
    assert "<em>" not in page


@searching(quick=150, deep=20_000)
@given(
    st.text(
        st.sampled_from("*_`[]()<>!#+-.=~|\\&;:/\"' \n\t$1a") | st.characters(exclude_categories=["Cs"]), max_size=40
    )
)
def test_no_value_makes_an_element_of_html(value: str) -> None:
    _, page = made("$name\n\nx $name y", name=value)
    assert set(re.findall(r"<([a-zA-Z/][^>\s]*)", page)) <= {"p", "/p", "br", "pre", "/pre", "code", "/code"}


def test_what_is_no_address_becomes_no_link() -> None:
    assert "href" not in made("[Pay]($link)", link="javascript:alert(1)")[1]


def test_line_breaks_and_lists_stay() -> None:
    text, page = made("a\nb\n\n- one\n- two\n\nc **$x**", x="bold")
    assert text == "a\nb\n\n- one\n- two\n\nc bold"
    assert "a<br />b" in page
    assert "<strong>bold</strong>" in page


def test_a_subject_is_one_line() -> None:
    assert (
        render("Hi $name\n\nx", {"name": "a\r\nBcc: b@example.com"}, layout="", language="en").subject
        == "Hi a Bcc: b@example.com"
    )


# --- languages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locales", "subject"),
    [
        (["de"], "Ihre Bestellung: 19,99 EUR"),
        (["de-AT"], "Ihre Bestellung: 19,99 EUR"),
        (["de-CH"], "Ihre Bestellung: 19.99 EUR"),
        (["fr_CA"], "Votre commande : 19,99 EUR"),
        (["nl", "de"], "Ihre Bestellung: 19,99 EUR"),
        (["en", "de"], "Your order: 19.99 EUR"),
        (["en-GB", "de"], "Your order: 19.99 EUR"),
        (["xx"], "Your order: 19.99 EUR"),
        (["../de"], "Your order: 19.99 EUR"),
        ([], "Your order: 19.99 EUR"),
    ],
)
def test_the_first_language_that_has_a_text_is_used(locales: list[str], subject: str) -> None:
    assert render_message(load({}), "receipt", locales, RECEIPT)[0].subject == subject


@pytest.mark.parametrize(
    ("value", "locale", "written"),
    [
        (Money(1990, "chf"), "de-CH", "19.90 CHF"),
        (Money(1990, "chf"), "de-LI", "19.90 CHF"),
        (Money(1990, "chf"), "it-CH", "19.90 CHF"),
        (Money(1990, "mxn"), "es-MX", "19.90 MXN"),
        (Money(1990, "eur"), "sq", "19,90 EUR"),
        (Money(1990, "zar"), "en-ZA", "19,90 ZAR"),
        (Money(2500, "jpy"), "de", "2.500 JPY"),
        (Money(4900, "kwd"), "en-GB", "4.900 KWD"),
        (Money(4900, "kwd"), "fr", "4,900 KWD"),
        (Money(123456789, "usd"), "en", "1,234,567.89 USD"),
        (Money(-5, "usd"), "en", "-0.05 USD"),
        (Day(1772366400), "en", "March 1, 2026"),
        (Day(1772366400), "en-GB", "1 March 2026"),
        (Day(1772366400), "de-AT", "1. März 2026"),
        (Day(1772366400), "fr", "1 mars 2026"),
        ("19.99 EUR", "de", "19.99 EUR"),
        (None, "de", ""),
    ],
)
def test_amounts_and_days_are_written_as_in_the_language_and_region(
    value: Money | Day | str | None, locale: str, written: str
) -> None:
    assert localize(value, locale) == written


def test_every_text_for_customers_exists_in_every_language_with_names_of_its_kind() -> None:
    allowed = allowed_names()
    shared = [name for name, names in allowed.items() if "business" in names]
    for folder in ("", "de", "fr"):
        for name in shared if folder else allowed:
            template = (TEMPLATES / folder / f"{name}.md").read_text()
            subject, _, body = template.partition("\n")
            assert names_in(template) <= allowed[name], (folder, name)
            assert name == "footer" or (subject.strip() and body.strip()), (folder, name)
    of_languages = {path.stem for path in TEMPLATES.glob("*/*.md")}
    assert (of_languages, {path.stem for path in TEMPLATES.glob("*.md")}) == (set(shared), set(allowed))


def test_the_page_about_messages_names_every_text_and_every_name() -> None:
    page = PAGE.read_text()
    for name, names in allowed_names().items():
        assert f"`{name}" in page, name
        assert [one for one in names if f"`${one}`" not in page] == [], name


# --- texts of one's own ---------------------------------------------------------------------------------------------


def test_a_folder_of_ones_own_is_looked_in_first(tmp_path: Path) -> None:
    (tmp_path / "de-AT").mkdir()
    (tmp_path / "de-AT" / "receipt.md").write_text("Servus\n\nbody")
    (tmp_path / "receipt.txt").write_text("Hello\n\nbody")
    mine = load({"TEMPLATES": str(tmp_path)})
    found = [find_template(mine, "receipt", [locale])[0].name for locale in ("de-AT", "en", "fr")]
    assert found == ["receipt.md", "receipt.txt", "receipt.txt"]
    assert find_template(mine, "trial_will_end", ["de"])[0] == TEMPLATES / "de" / "trial_will_end.md"


def test_values_that_are_not_known_are_named_to_the_administrator() -> None:
    message, _ = render_message(load({}), "no_address", (), {"message": "receipt", "customer": "", "event": "evt_1"})
    assert "Customer:  not known" in message.text


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("receipt.md", "Hello $nmae\n\nbody", "receipt.md uses $nmae; it may use $amount, $business"),
        ("de/receipt.md", "Hallo\n\n$", "de/receipt.md cannot be read: a $ that no name follows must be written $$"),
        ("receipt.txt", "only a subject", "receipt.txt must have a subject in its first line, and below it a body"),
        ("footer.md", "$amount", "footer.md uses $amount"),
        ("layout.html", "$body $text", "layout.html uses $text"),
    ],
)
def test_a_text_that_cannot_be_filled_in_stops_start_up(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / "de").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError) as error:
        check_templates(load({"TEMPLATES": str(tmp_path)}))
    assert str(error.value).startswith(f"TEMPLATES: {problem}")


def test_a_text_that_is_not_utf_8_stops_start_up(tmp_path: Path) -> None:
    (tmp_path / "receipt.md").write_bytes("Grüße\n\nx".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"receipt\.md cannot be read"):
        check_templates(load({"TEMPLATES": str(tmp_path)}))


def test_a_kind_that_does_not_exist_cannot_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "of_my_handler.md").write_text("Hello $world\n\nx")
    check_templates(load({"TEMPLATES": str(tmp_path), "MESSAGES_OFF": "receipt,of_my_handler,invoice_overdue"}))
    with pytest.raises(
        SettingsError, match="MESSAGES_OFF names reciept; it must name kinds of messages: agent_disabled"
    ):
        check_templates(load({"MESSAGES_OFF": "reciept"}))


def test_a_worker_does_not_start_with_a_wrong_text(tmp_path: Path) -> None:
    (tmp_path / "receipt.md").write_text("Hello $nmae\n\nbody")
    command = [sys.executable, "-c", "import workers.app"]
    environ = os.environ | {"TEMPLATES": str(tmp_path)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("holdfast: TEMPLATES: receipt.md uses $nmae")


def test_at_run_time_an_unknown_name_is_a_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "receipt.md").write_text("Hello $nmae\n\nbody")
    with pytest.raises(PermanentError, match=r"/receipt\.md may use only"):
        render_message(load({"TEMPLATES": str(tmp_path)}), "receipt", (), RECEIPT)


def test_every_message_to_a_customer_ends_with_who_writes_and_where_to_ask() -> None:
    ours = load({"BUSINESS_NAME": "Ada & Co", "SUPPORT_EMAIL": "help@shop.example", "PORTAL_URL": "https://my.example"})
    message, _ = render_message(ours, "receipt", ["de"], RECEIPT)
    end = "Ada & Co\n\nFragen? Schreiben Sie an help@shop.example.\nIhr Konto und Ihre Abonnements: https://my.example"
    assert message.text.endswith(end)
    assert "Ada &amp; Co" in message.html
    assert not [kind for kind in KINDS if kind == "footer"]
