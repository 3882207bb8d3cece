"""The tables of docs/scale.md are those of benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from docs_pages import ROOT, results

#: A row of docs/scale.md -> its figure in scale_model.json, how it is written, and the formula that a reader needs.
BILLION = {
    "node-hours": ("node_hours", "{:,.0f}", "frames / F / 3600"),
    "node-hours without overlays": ("node_hours_without_overlays", "{:,.0f}", "the same with that F"),
    "days on 100 nodes": ("days_on_nodes", "{:.1f}", "node-hours / 2400"),
    "cost, if a node-hour is 0.10 (assumed)": ("cost", "{:,.0f}", "node-hours times price"),
    "read, TB": ("terabytes_in", "{:.1f}", "frames times a file's bytes"),
    "label maps, TB": ("terabytes_labels", "{:.1f}", "so too"),
    "overlays, TB": ("terabytes_overlays", "{:,.1f}", "so too"),
    "a node reads, Mbit/s": ("node_megabits_in", "{:.1f}", "8 times F times bytes"),
    "a node writes, Mbit/s": ("node_megabits_out", "{:.1f}", "so too"),
}


def scale_size_rows() -> list[str]:
    """The table of a billion frames: a column for each size."""
    found = results("scale_model")
    assert (found["nodes"], found["price"]) == (100, 0.1)
    columns = found["sizes"]
    sizes = " | ".join("x".join(map(str, each["measured"]["size"])) for each in columns)
    rates = " | ".join(f"{each['measured']['fps']:.1f} ({each['measured']['fps_labels']:.1f})" for each in columns)
    rows = [f"| | {sizes} | |", "|---|---|---|---|", f"| F, frames a second (without overlays) | {rates} | |"]
    for title, (name, form, formula) in BILLION.items():
        rows.append(f"| {title} | {' | '.join(form.format(each['reckoned'][name]) for each in columns)} | {formula} |")
    return rows


def scale_driver_rows() -> list[str]:
    """The table of what the driver takes, for an image and for a billion."""
    found = results("scale_model")
    driver, (small, _) = found["driver"], [each["reckoned"] for each in found["sizes"]]
    assert driver["images"] == 100_000
    return [
        "| | an image | a billion |",
        "|---|---|---|",
        f"| planning | {driver['plan_us']:.0f} µs | {small['driver_hours_of_planning']:.0f} h |",
        f"| memory while planning | {driver['memory_bytes'] / 1000:.1f} kB | {small['driver_gigabytes_of_memory'] / 1000:.1f} TB |",
        f"| manifest | {driver['manifest_bytes']:.0f} bytes | {small['gigabytes_of_manifest']:.0f} GB |",
        f"| counting | {driver['count_us']:.0f} µs | enough for {small['nodes_a_driver']:,.0f} such nodes at 360x480 |",
    ]


def scale_speed_rows() -> list[str]:
    """The table of what Ray costs: speeds as multiples of one plain process's."""
    speed = results("scale_speed")["speed"]
    titles = {
        "plain_1": "one plain process", "plain_2": "two, each with half of the frames", "ray_1_node": "Ray, one node, one engine",
        "ray_2_nodes": "Ray, two nodes, one engine each",
    }  # fmt: skip
    rows = ["| | frames a second | as a multiple | whole command, s |", "|---|---|---|---|"]
    for name, title in titles.items():
        each = speed[name]
        rows.append(f"| {title} | {each['fps']:.1f} | {each['fps'] / speed['plain_1']['fps']:.2f} | {each['whole_s']:.0f} |")
    return rows


def scale_simulated_rows() -> list[str]:
    """The table of the simulated runs."""
    titles = {"24 h lives": "24 h", "2 h lives": "2 h", "slow driver": "24 h, the driver ten times slower"}
    rows = [
        "| nodes | a node's mean life | hours | of the nodes' time gave results | failures | driver busy |",
        "|---|---|---|---|---|---|",
    ]
    for each in results("scale_model")["simulated"]:
        outcome = each["outcome"]
        shares = f"{outcome['efficiency']:.0%} | {outcome['failures']:,} | {outcome['driver_busy']:.0%}"
        rows.append(f"| {each['nodes']:,} | {titles[each['case']]} | {outcome['hours']:.1f} | {shares} |")
    return rows


@pytest.mark.parametrize("rows", [scale_size_rows, scale_driver_rows, scale_speed_rows, scale_simulated_rows])
def test_very_many_frames(rows: Callable[[], list[str]]) -> None:
    text = (ROOT / "docs" / "scale.md").read_text()
    assert [row for row in rows() if row not in text] == []


def test_killed_nodes_and_drivers_lost_nothing() -> None:
    """What docs/scale.md says of scale.json."""
    found = results("scale")
    assert len(found["kills"]) == 10
    assert found["how"]["frames"] == 200
    assert all(each["equal"] and each["every_output_once"] for each in found["kills"])
    assert found["driver_killed"]["equal"]
    assert found["driver_killed"]["made_again"] == found["driver_killed"]["half_made"]
