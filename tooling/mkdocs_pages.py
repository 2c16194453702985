"""MkDocs hook that adds the pages which are written elsewhere in the repository, and one API page per package."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "index.md": "README.md",
    "infra.md": "infra/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
IMAGES = ["models/small-controlnet/grid.png"]
REPOSITORY_LINKS = {"docs/": "", "../docs/": "", "../models/": "models/", "../infra/README.md": "infra.md"} | {
    path: page for page, path in PAGES.items()
}


def _api_pages() -> dict[str, str]:
    """The Markdown of the API reference by page, one page for each package of the library."""
    pages = {}
    for package in sorted(path.parent for path in (ROOT / "hand1000").glob("*/__init__.py")):
        modules = sorted(path.stem for path in package.rglob("*.py") if path.stem != "__init__")
        entries = "".join(
            f"::: {'.'.join(path.relative_to(ROOT).with_suffix('').parts)}\n\n"
            for path in sorted(package.rglob("*.py"))
            if path.stem != "__init__"
        )
        if modules:
            pages[f"api/{package.name}.md"] = f"# hand1000.{package.name}\n\n{entries}"
    return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the API reference to the navigation."""
    config.nav = [*(config.nav or []), {"API": sorted(_api_pages())}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and the images outside `docs/`."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for page, text in _api_pages().items():
        files.append(File.generated(config, page, content=text))
    for image in IMAGES:
        files.append(File.generated(config, image, abs_src_path=str(ROOT / image)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point the links between files of the repository to the pages of the site."""

    def site_link(match: re.Match[str]) -> str:
        target = match["target"]
        for old, new in REPOSITORY_LINKS.items():
            if target == old or (old.endswith("/") and target.startswith(old)):
                return f"]({new}{target.removeprefix(old)}{match['anchor'] or ''})"
        return match[0]

    return re.sub(r"\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)", site_link, markdown)
