#!/bin/sh
# Apprise 2.2.0, mail: an address with an apostrophe is read as a name and another address, and the mail goes to that one.
# o'hara@example.com is valid (RFC 5322, atext) and common; hara@example.com may be somebody else. The call succeeds.
#
# apprise.utils.parse.GET_EMAIL_RE takes what is before an apostrophe for the name of the recipient. Addresses in
# international domains are dropped, and the text part of a mail in HTML has no addresses of links.
#
# Output:
#   o'hara@example.com is mailed to hara@example.com
#   ada@müller.example is mailed to nobody
#   text of a link: Pay here.
#
# This exits with 1 if the output differs.
set -eu
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check apprise==2.2.0
cd "$folder"

cat >mail.py <<'END'
"""Print to whom Apprise would mail, and the text part that it makes of HTML."""

from urllib.parse import quote

from apprise import Apprise
from apprise.conversion import html_to_text

for address in ("o'hara@example.com", "ada@müller.example"):
    mail = Apprise.instantiate(f"mailto://mail.example/?from=shop@example.com&to={quote(address)}")
    print(address, "is mailed to", ", ".join(target for _, target in mail.targets) or "nobody")
print("text of a link:", html_to_text('<p>Pay <a href="https://pay.example">here</a>.</p>').strip())
END

"$folder/venv/bin/python" mail.py 2>/dev/null | tee seen
sed -n 's/^#   //p' "$self" | diff - seen
