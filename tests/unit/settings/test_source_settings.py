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
        ("mine", "TOML, a table for each source"),
        ("mine = 1", "scheme, secret, header, id and type, and nothing else, in [mine]"),
        (f'[stripe]\nsecret = "{SIGNING}"', "names of small letters, digits and -, other than stripe, documents"),
        (f'[Mine]\nsecret = "{SIGNING}"', "names of small letters, digits and -"),
        (f'["a/b"]\nsecret = "{SIGNING}"', "names of small letters, digits and -"),
        (f'[mine]\nsecrets = "{SIGNING}"', "scheme, secret, header, id and type, and nothing else, in [mine]"),
        (f'[mine]\nscheme = "md5"\nsecret = "{PLAIN}"', "as the scheme of [mine] one of standard, hmac-sha256, bearer"),
        ("[mine]", "as the secret of [mine] a text, or a list of texts"),
        ("[mine]\nsecret = [1]", "as the secret of [mine] a text, or a list of texts"),
        ("[mine]\nsecret = []", "as the secret of [mine] one or more secrets"),
        (f'[mine]\nsecret = "{PLAIN}"', "as the secret of [mine] one or more secrets, comma-separated, each whsec_"),
        ('[mine]\nscheme = "bearer"\nsecret = "short"', "as the secret of [mine] one or more secrets"),
        (f'[mine]\nsecret = "{SIGNING}"\nheader = "X"', "no header in [mine]: the scheme standard has its own"),
        (f'[mine]\nscheme = "bearer"\nsecret = "{PLAIN}"\nheader = "X: y"', "as header of [mine] the name of a header"),
        (f'[mine]\nsecret = "{SIGNING}"\nid = "query:x"', "as id of [mine] header:<name> or body:<field>.<field>"),
        (f'[mine]\nsecret = "{SIGNING}"\ntype = 7', "as type of [mine] header:<name> or body:<field>.<field>"),
    ],
)
def test_a_wrong_source_is_one_line_that_shows_no_secret(toml: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"SOURCES": toml})
    said = str(caught.value)
    assert said.startswith(f"SOURCES is (hidden); it takes {words}")
    assert not any(secret in said for secret in (PLAIN, SIGNING, "\n"))


def test_the_example_of_the_settings_page_loads() -> None:
    (example,) = re.findall(r"```toml\n(\[github\].*?)```", PAGE, flags=re.DOTALL)
    sources = load({"SOURCES": example.replace('"…"', f'"{PLAIN}"')}).sources
    assert (sources["github"].id, sources["crm"].type) == ("header:X-GitHub-Delivery", "body:event.kind")
