from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from small_hooks import out

from djsandbox_ray.workflows.foresight.wiring import wiring


def job(id: str, *sources: str, **more: Any) -> dict[str, Any]:
    return {
        "job": id,
        "hook": id,
        "done": False,
        "takes": {source: out(source) for source in sources},
        "from": list(sources),
        "parameters": {},
        "changed": [],
        **more,
    }


def test_a_chain_is_one_rail() -> None:
    lines = wiring([job("a"), job("b", "a"), job("c", "b")])
    assert lines == ["●  a  to do", "●  b  to do  <- a", "○  c  to do  <- b"]


def test_rails_end_where_nobody_takes_any_more() -> None:
    lines = wiring(
        [
            job("data"),
            job("other"),
            job("sum", "data", "other"),
            job("lone"),
            job("end", "sum", "data"),
        ]
    )
    assert [line.split("  ")[0] for line in lines] == ["●", "│ ●", "├─●", "│ │ ○", "○─╯"]


def test_a_rail_that_is_only_crossed_is_drawn_through() -> None:
    lines = wiring([job("a"), job("b"), job("c", "a"), job("d", "a", "b", "c")])
    assert lines[2].startswith("├─│─●")
    assert lines[3].startswith("○─┴─╯")


def test_what_is_said_of_a_job() -> None:
    (_, line) = wiring(
        [
            job("pools"),
            job(
                "choice",
                hook="top_k",
                done=True,
                takes={"pools": out("pools"), "size": out("pools", "draw_size")},
                **{"from": ["pools"]},
                parameters={"top": 4, "only_confirmed": True, "name": "x"},
                changed=["top", "name"],
            ),
        ]
    )
    assert line == "○  choice  done   top_k  <- pools, size: pools.draw_size  top=4  name='x'"


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = []
    for index in range(draw(st.integers(1, 20))):
        earlier = st.sets(st.sampled_from([item["job"] for item in jobs] or ["none"]), max_size=4)
        jobs.append(job(f"j{index}", *(sorted(draw(earlier)) if jobs else [])))
    return jobs


@settings(max_examples=40)
@given(graphs())
def test_the_drawing_is_the_graph(jobs: list[dict[str, Any]]) -> None:
    """What a job is joined to, read back from the rails, is what it takes."""
    rails: dict[int, str] = {}
    for line, item in zip(wiring(jobs), jobs, strict=True):
        cells = line[: line.index(f"  {item['job']} ")].ljust(200)
        (own,) = (lane for lane in range(100) if cells[2 * lane] in "●○")
        joined = {rails[lane] for lane in range(100) if cells[2 * lane] in "├┤╰╯┼┴"}
        if own in rails:
            joined.add(rails.pop(own))
        assert joined == set(item["from"])
        for lane in list(rails):
            assert cells[2 * lane] in "├┤╰╯┼┴│"
            if cells[2 * lane] in "╰╯┴":
                del rails[lane]
        if cells[2 * own] == "●":
            rails[own] = item["job"]
    assert not rails
