"""The job that writes the page, and what workflows give to it."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.hooks.report import WriteReport
from djsandbox_ray.reporting.chapters import Later
from djsandbox_ray.workflows.language.workflow import load_workflow


def test_the_job_takes_all_of_it_and_needs_none_of_it() -> None:
    parameters = inspect.signature(WriteReport.run).parameters
    for field in fields(Later):
        assert parameters[field.name].default is None, field.name


@pytest.mark.parametrize("name", ["single_op", "multi_op", "scaling", "probe_analyze_refine"])
def test_the_page_of_a_workflow_comes_last_and_shows_whatever_it_found(name: str) -> None:
    jobs = load_workflow(name).jobs
    report = jobs[-1]
    assert HOOKS.get(report.hook) is WriteReport
    taken = {key for key, reference in report.references.items() if reference.job == key}
    assert {job.id for job in jobs} & {field.name for field in fields(Later)} <= taken
