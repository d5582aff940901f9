"""What the site has besides the pages in this folder: a hook of MkDocs, an extension of Griffe; mkdocs.yml names both.

README, changes and the security policy lie at the top, where people and tools look for them; here they become pages,
and links to and from them follow. The page about Python is made from the docstrings of `probemill`, and from the words
that fields have as `Meta(description=...)`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import probemill

ROOT = Path(__file__).resolve().parent.parent
MOVED = {"README.md": "index.md", "CHANGELOG.md": "changes.md", "SECURITY.md": "security.md"}
PUBLIC = {
    "Scan": "scan scan_sync ScanConfig Target",
    "Results": "ServiceResult Verdict Reason Tunnel",
    "Stored responses": "match load_database Matcher Match",
    "Errors": "EngineError ConfigError InputError MatcherError",
}
PLAIN = {"ServiceResult", "Target", "Verdict", "Reason", "Tunnel", "Match"}  # fields need no words of their own

_LINK = re.compile(r"(?<=\]\()(?:\.\./)?([^)#:\s]+)")  # the place in [words](place)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in MOVED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "python.md", content="\n".join(python_page())))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    return _LINK.sub(_moved, markdown)


def _moved(link: re.Match[str]) -> str:
    place = link[1].removeprefix("docs/")
    return MOVED.get(place, place)


def python_page() -> Iterator[str]:
    """All that is public, in the order of PUBLIC. Raises PluginError where that is not `probemill.__all__`."""
    if {*" ".join(PUBLIC.values()).split(), "__version__"} != {*probemill.__all__}:
        raise PluginError("docs/pages.py: PUBLIC has not the names of probemill.__all__")
    yield "# From Python\n"
    yield "::: probemill\n    options: {members: false, show_root_heading: false}\n"
    for title, names in PUBLIC.items():
        yield f"## {title}\n"
        for name in names.split():
            yield f"::: probemill.{name}\n    options: {{show_if_no_docstring: {str(name in PLAIN).lower()}}}\n"
    yield "## Data engines\n"
    yield "::: engine.arrow\n    options: {members: false, show_root_heading: false}\n"
    for name in ("match_batches", "match_schema", "scan_batches"):
        yield f"::: engine.arrow.{name}\n"


class FieldWords(griffe.Extension):
    """`name: Annotated[type, Meta(description=words)]` is documented as `name: type`, with the words."""

    def on_attribute(self, *, attr: griffe.Attribute, **_: Any) -> None:
        written = attr.annotation
        if not isinstance(written, griffe.ExprSubscript) or written.canonical_name != "Annotated":
            return
        assert isinstance(written.slice, griffe.ExprTuple)
        attr.annotation, meta = written.slice.elements[:2]
        for argument in meta.arguments if isinstance(meta, griffe.ExprCall) else ():
            if isinstance(argument, griffe.ExprKeyword) and argument.name == "description":
                attr.docstring = griffe.Docstring(ast.literal_eval(str(argument.value)), parent=attr)
