"""Draw the layers of the package as an SVG: python docs/figures/make_layers.py"""

from __future__ import annotations

from pathlib import Path

ROWS = (  # from the top down
    ("what users call", ("demo", "automatic", "verbs", "cli", "import semi_nnunet")),
    (
        "experiments",
        ("benchmarking", "inference", "challenge", "reporting", "pseudo_labels", "annotation"),
    ),
    ("jobs", ("runs", "workflows")),
    ("methods and models", ("deploy", "methods", "discovery")),
    ("trainers", ("training",)),
    ("plans and networks", ("networks", "planning")),
    ("benchmarks and measures", ("datasets", "evaluation")),
    ("data", ("raw", "verify", "preprocessing", "loading")),
    ("settings", ("settings",)),
    ("pure tensor functions", ("core", "augment")),
    ("basics", ("util",)),
)
WIDTH, HEIGHT, GAP, LEFT, MARGIN = 760, 40, 10, 190, 16
FILLS = ("#dbeafe",) * 3 + ("#dcfce7",) * 2 + ("#fef3c7",) * 4 + ("#ede9fe",) * 2


def drawing() -> str:
    height = 2 * MARGIN + len(ROWS) * (HEIGHT + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="15">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for number, (name, packages) in enumerate(ROWS):
        y = MARGIN + number * (HEIGHT + GAP)
        text_y = y + HEIGHT / 2 + 5
        parts.append(f'<text x="{MARGIN}" y="{text_y}" fill="#475569">{name}</text>')
        space = WIDTH - LEFT - MARGIN
        width = (space - GAP * (len(packages) - 1)) / len(packages)
        for column, package in enumerate(packages):
            x = LEFT + column * (width + GAP)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{HEIGHT}" rx="6" '
                f'fill="{FILLS[number]}" stroke="#94a3b8"/>'
            )
            parts.append(
                f'<text x="{x + width / 2:.1f}" y="{text_y}" text-anchor="middle" '
                f'fill="#0f172a">{package}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_name("layers.svg").write_text(drawing(), encoding="utf-8")
