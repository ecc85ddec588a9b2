"""SOURCES: what is taken, and the one line that a wrong one stops start-up with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from settings import SettingsError, load
from settings.sources import SourceSetting

PLAIN, OTHER = "a-secret-of-16-or-more", "b-secret-of-16-or-more"
SIGNING = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PAGE = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()


@pytest.mark.parametrize(
    ("toml", "made"),
    [
        (f'secret = "{SIGNING}"', SourceSetting("standard", (SIGNING,), "", "header:webhook-id", "body:type")),
        (
            f'scheme = "hmac-sha256"\nsecret = ["{PLAIN}", "{OTHER}"]',
            SourceSetting("hmac-sha256", (PLAIN, OTHER), "X-Hub-Signature-256", "", "body:type"),
        ),
        (
            f'scheme = "bearer"\nsecret = "{PLAIN}"\nheader = "X-Key"\nid = "body:a.b"\ntype = "header:X-Type"',
            SourceSetting("bearer", (PLAIN,), "X-Key", "body:a.b", "header:X-Type"),
        ),
    ],
)
def test_a_source_is_parsed(toml: str, made: SourceSetting) -> None:
    assert load({"SOURCES": f"[mine]\n{toml}"}).sources == {"mine": made}


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("mine", "TOML with a table for each source"),
        ("mine = 1", "TOML in which [mine] has scheme, secret, header, id and type, and nothing else"),
        (
            f'[stripe]\nsecret = "{SIGNING}"',
            "TOML with names of lower-case letters, digits and -, other than stripe, documents",
        ),
        (f'[Mine]\nsecret = "{SIGNING}"', "TOML with names of lower-case letters, digits and -"),
        (f'["a/b"]\nsecret = "{SIGNING}"', "TOML with names of lower-case letters, digits and -"),
        (
            f'[mine]\nsecrets = "{SIGNING}"',
            "TOML in which [mine] has scheme, secret, header, id and type, and nothing else",
        ),
        (
            f'[mine]\nscheme = "md5"\nsecret = "{PLAIN}"',
            "TOML in which the scheme of [mine] is one of standard, hmac-sha256, bearer",
        ),
        ("[mine]", "TOML in which the secret of [mine] is a string, or a list of strings"),
        ("[mine]\nsecret = [1]", "TOML in which the secret of [mine] is a string, or a list of strings"),
        ("[mine]\nsecret = []", "TOML in which the secret of [mine] is one or more secrets"),
        (
            f'[mine]\nsecret = "{PLAIN}"',
            "TOML in which the secret of [mine] is one or more secrets, comma-separated, each whsec_",
        ),
        ('[mine]\nscheme = "bearer"\nsecret = "short"', "TOML in which the secret of [mine] is one or more secrets"),
        (
            f'[mine]\nsecret = "{SIGNING}"\nheader = "X"',
            "TOML in which [mine] has no header: the scheme standard has its own",
        ),
        (
            f'[mine]\nscheme = "bearer"\nsecret = "{PLAIN}"\nheader = "X: y"',
            "TOML in which the header of [mine] is the name of a header",
        ),
        (
            f'[mine]\nsecret = "{SIGNING}"\nid = "query:x"',
            "TOML in which the id of [mine] is header:<name> or body:<field>.<field>",
        ),
        (
            f'[mine]\nsecret = "{SIGNING}"\ntype = 7',
            "TOML in which the type of [mine] is header:<name> or body:<field>.<field>",
        ),
    ],
)
def test_a_wrong_source_is_one_line_that_shows_no_secret(toml: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"SOURCES": toml})
    said = str(caught.value)
    assert said.startswith(f"SOURCES is (hidden); it must be {words}")
    assert not any(secret in said for secret in (PLAIN, SIGNING, "\n"))


def test_the_example_of_the_settings_page_loads() -> None:
    (example,) = re.findall(r"```toml\n(\[github\].*?)```", PAGE, flags=re.DOTALL)
    sources = load({"SOURCES": example.replace('"…"', f'"{PLAIN}"')}).sources
    assert (sources["github"].id, sources["crm"].type) == ("header:X-GitHub-Delivery", "body:event.kind")
