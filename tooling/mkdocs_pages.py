"""MkDocs hook that adds the pages which are written elsewhere in the repository, and one API page per package."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "hand1000"
SHIMS = {"diffusion"}
"""Packages that only keep old import paths alive."""
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
    pages = {"api/hand1000.md": "# hand1000\n\n::: hand1000\n\n::: hand1000.gestures\n"}
    for package in sorted(path.parent for path in LIBRARY.glob("*/__init__.py") if path.parent.name not in SHIMS):
        modules = [path.relative_to(ROOT).with_suffix("") for path in sorted(package.rglob("*.py"))]
        entries = [f"::: {'.'.join(module.parts)}\n" for module in modules if module.name != "__init__"]
        pages[f"api/{package.name}.md"] = f"# hand1000.{package.name}\n\n" + "\n".join(entries)
    return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the API reference to the navigation."""
    config.nav = [*(config.nav or []), {"API": list(_api_pages())}]
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
