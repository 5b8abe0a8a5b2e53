"""A ladder as one self-contained page: an SVG with a life line for each actor."""

from __future__ import annotations

from html import escape
from typing import Final

from services.lab.explore import Outcome
from services.lab.ladder import telling_rows

_COLUMN: Final = 250
_ROW: Final = 20
_TOP: Final = 56

_STYLE: Final = """
body{font:14px system-ui,sans-serif;margin:24px;color:#1c2430;background:#fff}
svg{font:12px ui-monospace,monospace}
.life{stroke:#c3cad4}.name{font-weight:600}.read{fill:#33506e}.write{fill:#8a3b12}
.lock,.unlock{fill:#6b6b6b}.blocked{fill:#a11}.turn{stroke:#7d8ea3;stroke-dasharray:3 3}
.failure{color:#a11;font-weight:600}
""".strip()


def page(outcome: Outcome, title: str) -> str:
    """HTML text; refers to nothing outside itself."""
    steps = telling_rows(outcome)
    actors = list(dict.fromkeys(actor for actor, _, _ in steps))
    column = {actor: 20 + i * _COLUMN for i, actor in enumerate(actors)}
    height = _TOP + _ROW * len(steps) + 20
    parts = []
    for actor, x in column.items():
        parts.append(f'<text class="name" x="{x}" y="24">{escape(actor)}</text>')
        parts.append(f'<line class="life" x1="{x}" y1="34" x2="{x}" y2="{height - 10}"/>')
    before = None
    for i, (actor, kind, text) in enumerate(steps):
        x, y = column[actor], _TOP + _ROW * i
        if before is not None and before != actor:
            parts.append(f'<line class="turn" x1="{column[before]}" y1="{y - 14}" x2="{x}" y2="{y - 14}"/>')
        before = actor
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="3"/>')
        parts.append(f'<text class="{escape(kind)}" x="{x + 10}" y="{y}">{escape(text)}</text>')
    failure = outcome.run.failure
    verdict = f'<p class="failure">{escape(str(failure))}</p>' if failure is not None else "<p>no failure</p>"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        f'<svg width="{20 + _COLUMN * max(1, len(actors))}" height="{height}" role="img">\n'
        + "\n".join(parts)
        + f"\n</svg>\n{verdict}</body></html>\n"
    )
