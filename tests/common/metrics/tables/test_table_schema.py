"""The registry of tables: what it releases, and how the study's epsilon is divided."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.metrics.summaries.tabulate import FILLS
from common.metrics.tables import table_schema
from common.metrics.tables.grid import EvaluationGrid
from common.metrics.tables.table_schema import (
    TABLES,
    Table,
    noise_plan,
    tables_of,
)
from common.registry import Registry
from common.study.study import Study

SUBGROUPS = {
    "sex": {"column": "clinical_sex", "levels": {"male": ["m"], "female": ["f"]}},
    "age": {"column": "clinical_age", "bands": [50, 65]},
}
TASKS = (("response",), ("survival",), ("response", "survival"))
epsilons = st.floats(0.1, 20)


def dp_grid(tasks=("response", "survival"), groups=(), **epsilon):
    endpoints = {"response": {"positive": "yes"}, "survival": {}}
    return EvaluationGrid.for_study(
        Study.from_mapping(
            {
                "study_id": "test",
                "endpoints": {task: endpoints[task] for task in tasks},
                "features": {"x": {"modality": "clinical", "dim": 3}},
                "privacy": {"evaluation": {"release": "dp", **epsilon}},
                "subgroups": {name: SUBGROUPS[name] for name in groups},
                "sites": [{"site_id": f"site{k}"} for k in range(7)],
            },
            where="test",
        )
    )


@given(
    tasks=st.sampled_from(TASKS),
    groups=st.sampled_from([(), ("sex",), ("sex", "age")]),
    two_phases=st.booleans(),
    response=epsilons,
    survival=epsilons,
    subgroup=st.one_of(st.just(0.0), epsilons),
)
def test_epsilons_of_all_released_tables_are_the_plan_of_the_study(
    tasks, groups, two_phases, response, survival, subgroup
):
    named = {"response_epsilon": response, "survival_epsilon": survival}
    grid = dp_grid(tasks, groups, **named, subgroup_epsilon=subgroup)
    phases = ("margins", "tables") if two_phases else ("tables",)
    spent = [n for p in phases for n in noise_plan(grid, p, two_phases=two_phases).values()]
    promised = sum(named[f"{task}_epsilon"] for task in tasks) + (subgroup if groups else 0)
    assert math.isclose(sum(noise.epsilon for noise in spent), promised)
    assert not noise_plan(grid, "paired", two_phases=two_phases)


@pytest.mark.parametrize("name", ["extra_survival", "tumour_grade", "subgroup_response"])
@pytest.mark.parametrize("task", ["survival", "response"])
def test_the_name_of_a_table_decides_nothing(monkeypatch, name, task):
    table = Table(name, task, "tables", lambda _: (3,), share=0.9)
    monkeypatch.setattr(table_schema, "TABLES", Registry("table", (*TABLES, table)))
    grid = dp_grid(groups=("sex",), survival_epsilon=4.0, response_epsilon=2.0)
    plan = noise_plan(grid, "tables", two_phases=False)
    budget = {"survival": 4.0, "response": 2.0}
    other = "response" if task == "survival" else "survival"
    assert plan[name].epsilon == plan[task].epsilon == pytest.approx(budget[task] / 2)
    assert plan[other].epsilon == pytest.approx(budget[other])
    assert set(plan) == {name, "survival", "response"}


def test_every_table_is_filled_and_only_those_with_a_share_leave_with_noise():
    single = {table.name for table in TABLES if table.phase != "paired"}
    assert set(FILLS) == single
    grid = dp_grid(groups=("sex",), subgroup_epsilon=1.0)
    for phase in ("margins", "tables"):
        released = tables_of(grid, phase)
        assert all(table.share > 0 for table in released.values())
        assert set(noise_plan(grid, phase, two_phases=True)) == set(released)
