"""What other hosts run for the project: that it is there, and does what its documents say."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FLOWS = {
    path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob(".github/workflows/*.yml")
}
JOBS = [(name, key, job) for name, flow in FLOWS.items() for key, job in flow["jobs"].items()]
STEPS = [(name, key, step) for name, key, job in JOBS for step in job["steps"]]


def commands(flow, job):
    """Return the commands of a job as one text."""
    return "\n".join(step.get("run", "") for step in FLOWS[flow]["jobs"][job]["steps"])


def test_there_is_a_workflow_for_each_occasion():
    """A change, a night, and a tag of a version; "on" is a truth value to YAML 1.1."""
    starts = {name: set(flow[True]) for name, flow in FLOWS.items()}

    assert starts == {
        "tests": {"push", "pull_request"},
        "nightly": {"schedule", "workflow_dispatch"},
        "release": {"push"},
    }
    assert FLOWS["release"][True]["push"] == {"tags": ["v*"]}


def test_commands_of_workflows_are_there():
    """Each target of make and each program that a step runs."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(step.get("run", "") for _, _, step in STEPS)
    made = set(re.findall(r"\bmake ([a-z][a-z-]*)$", text, re.MULTILINE))
    programs = set(re.findall(r"\.ci/[a-z-]+", text))

    assert {"lint", "dist", "test-covered"} <= made <= targets
    assert {".ci/run", ".ci/test-wheel", ".ci/check-tag"} <= programs
    assert [name for name in programs if not (ROOT / name).stat().st_mode & 0o100] == []


def test_actions_have_a_major_version():
    """An action comes from no branch that changes under us, unless its makers ask for that."""
    used = {step["uses"] for _, _, step in STEPS if "uses" in step}

    assert {name for name in used if not re.fullmatch(r"[\w/-]+@v\d+", name)} == {
        "pypa/gh-action-pypi-publish@release/v1"
    }


def test_a_workflow_only_reads_but_for_jobs_that_say_so():
    """Rights to write are those of attestations and of publishing, in their jobs only."""
    granted = {
        (name, key): {right for right, kind in job["permissions"].items() if kind == "write"}
        for name, key, job in JOBS
        if "permissions" in job
    }

    assert [flow["permissions"] for flow in FLOWS.values()] == [{"contents": "read"}] * 3
    assert granted == {
        ("release", "build"): {"attestations", "id-token"},
        ("release", "publish"): {"id-token"},
    }


def test_jobs_wait_for_jobs_that_are_there():
    """What a job needs is another one of the same workflow."""
    needs = [(name, job["needs"]) for name, _, job in JOBS if "needs" in job]

    assert len(needs) >= 3
    assert [need for name, need in needs if need not in FLOWS[name]["jobs"]] == []


@pytest.mark.parametrize(("flow", "job"), [("tests", "test-wheel"), ("release", "test")])
def test_the_wheel_is_tested_in_every_python_that_it_names(flow, job):
    """The package names each release that it is made for, from the oldest that it accepts."""
    prefix = "Programming Language :: Python :: 3."
    named = [name for name in PROJECT["project"]["classifiers"] if name.startswith(prefix)]
    releases = [name.rpartition(" ")[2] for name in named]

    assert FLOWS[flow]["jobs"][job]["strategy"]["matrix"]["python"] == releases
    assert releases == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == f">={releases[0]}"


@pytest.mark.parametrize(("flow", "job"), [("tests", "test-wheel"), ("release", "test")])
def test_the_tested_wheel_is_the_one_that_was_built(flow, job):
    """It is built once, in a job before, and handed over."""
    steps = FLOWS[flow]["jobs"][job]["steps"]

    assert "make" not in commands(flow, job)
    assert FLOWS[flow]["jobs"][job]["needs"] == "build"
    assert [step for step in steps if step.get("uses", "").startswith("actions/download-artifact")]


def test_nothing_is_published_before_its_tests():
    """The archives of a release wait for the tests of the wheel, and for its tag to be right."""
    jobs = FLOWS["release"]["jobs"]

    assert jobs["publish"]["needs"] == "test"
    assert jobs["test"]["needs"] == "build"
    assert ".ci/check-tag" in commands("release", "build")
    assert "make dist" in commands("release", "build")


def test_changes_are_measured_against_a_floor_of_coverage():
    """The tests of a change fail if too few lines were run, in workers too."""
    coverage = PROJECT["tool"]["coverage"]

    assert commands("tests", "test").endswith("make test-covered")
    assert coverage["report"]["fail_under"] >= 60
    assert {"subprocess", "fork"} <= set(coverage["run"]["patch"])


def test_forms_for_issues_have_what_is_required():
    """A form without a name, a description and a body is not shown."""
    forms = [path for path in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml") if path.stem != "config"]
    read = {path.stem: yaml.safe_load(path.read_text()) for path in forms}
    kinds = {part["type"] for form in read.values() for part in form["body"]}

    assert set(read) == {"idea", "problem"}
    assert [
        name for name, form in read.items() if not form["name"] or not form["description"]
    ] == []
    assert kinds <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def test_dependencies_and_actions_are_kept_up_to_date():
    """Both are looked after, and hooks before a commit have a fixed version."""
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}
    assert [
        hook["repo"] for hook in hooks if not re.fullmatch(r"v\d+\.\d+\.\d+", hook["rev"])
    ] == []
