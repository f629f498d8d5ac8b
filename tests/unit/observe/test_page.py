"""The status page as a file: it needs nothing from elsewhere and runs nothing but what its policy names."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from predictd.server.observe.page import content_security_policy, status_page

PAGE = status_page().body.decode()


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # type: ignore[explicit-override]
        self.found.append((tag, dict(attrs)))


def elements() -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(PAGE)
    return parser.found


def test_its_policy_lets_its_own_script_and_style_run_and_nothing_else() -> None:
    policy = dict(status_page().headers)["Content-Security-Policy"]
    directives = {name: values for name, *values in (part.split() for part in policy.split("; "))}
    assert directives["default-src"] == ["'none'"]
    assert directives["connect-src"] == ["'self'"]
    for directive, element in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(rf"<{element}>(.*?)</{element}>", PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert directives[directive] == [f"'sha256-{digest}'"]


def test_the_hash_of_each_script_is_in_the_policy() -> None:
    policy = content_security_policy(b"<script>a</script><p></p><script>b</script>")
    assert policy.count("'sha256-") == 2


def test_nothing_comes_from_elsewhere_and_no_attribute_is_code_or_style() -> None:
    for tag, attributes in elements():
        assert not {name for name in attributes if name.startswith("on")} | ({"style"} & attributes.keys()), (
            tag
        )
        for name in {"src", "href", "srcset", "action", "data"} & attributes.keys():
            target = attributes[name] or ""
            assert re.fullmatch(r"[a-z.]+|data:image/svg.*", target), (tag, target)
    style = re.findall(r"<style>(.*?)</style>", PAGE, re.DOTALL)[0]
    assert "url(" not in style and "@import" not in style


def test_what_the_daemon_says_is_never_read_as_markup() -> None:
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert sink not in PAGE


def test_each_table_has_a_caption_and_each_section_a_name() -> None:
    assert PAGE.count("<table>") == PAGE.count("<caption>") > 3
    ids = [attributes["id"] for _, attributes in elements() if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {attributes.get("aria-labelledby") for _, attributes in elements()} - {None}
    assert named <= set(ids)
