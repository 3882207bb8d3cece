"""deploy/: Dockerfiles that hadolint accepts, manifests that Kubernetes' schemas accept, and commands that exist with these options."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from served import served

from rtformer_deploy.cli import main

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
RAY = ROOT / "deploy" / "ray" / "segment.yaml"
#: The oldest and the newest Kubernetes that the manifests are checked against.
KUBERNETES = ("1.27", "1.37")


def documents(path: Path) -> list[Any]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: make test-services")
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def parse(words: list[str]) -> None:
    """Parses a command line of rtformer-deploy without running it. Raises click.ClickException."""
    context = click.Context(main, info_name="rtformer-deploy")
    name, command, rest = main.resolve_command(context, list(words))
    assert command is not None
    command.make_context(name, rest, parent=context)


def last(name: str, dockerfile: str) -> list[str]:
    """The words of a Dockerfile's last CMD or ENTRYPOINT that begins a line."""
    found = re.findall(rf"^{name} (\[.*\])$", dockerfile, re.MULTILINE)
    words: list[str] = json.loads(found[-1])
    return words


def containers(manifest: Any) -> Iterator[Any]:
    """The containers of the pods that a manifest makes."""
    if isinstance(manifest, dict):
        yield from manifest.get("containers", [])
        for value in manifest.values():
            yield from containers(value)
    elif isinstance(manifest, list):
        for value in manifest:
            yield from containers(value)


def test_there_is_something_to_check() -> None:
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]
    assert len(MANIFESTS) == 3


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_accepts_a_dockerfile(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: make test-services")
    done = subprocess.run([hadolint, "--failure-threshold", "style", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_of_two_stages_without_root_and_copies_what_there_is(path: Path) -> None:
    text = path.read_text()
    assert text.count("\nFROM ") == 2
    final = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final, re.MULTILINE)
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines(), source
    assert last("ENTRYPOINT", final) == ["rtformer-deploy"]
    parse(last("CMD", final))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_health_check_tells_a_ready_service_from_none(path: Path) -> None:
    command = json.loads(re.findall(r"^  CMD (\[.*\])$", path.read_text(), re.MULTILINE)[-1])
    assert command[0] == "python"
    with served() as service:
        code = command[2].replace("http://127.0.0.1:8000", service.url)
        assert code != command[2]
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode != 0


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_schemas_accept_a_manifest(path: Path, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make test-services")
    for document in documents(path):
        validator.validate(document, version, strict=True)


def test_the_validator_refuses_what_is_wrong() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make test-services")
    (deployment, *_) = documents(MANIFESTS[-1])
    deployment["spec"]["replicas"] = "three"
    with pytest.raises(Exception, match="three"):
        validator.validate(deployment, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_a_manifests_containers_are_locked_down_and_their_commands_exist(path: Path) -> None:
    found = [container for document in documents(path) for container in containers(document)]
    assert found
    for container in found:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
        parse([str(word) for word in container["args"]])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_probes_ask_what_the_service_answers(path: Path) -> None:
    probes = {
        probe["httpGet"]["path"]
        for document in documents(path)
        for container in containers(document)
        for name, probe in container.items()
        if name.endswith("Probe")
    }
    with served() as service:
        for address in sorted(probes):
            assert service.client.get(address).status_code == 200, address


def test_the_grace_period_is_longer_than_what_the_service_may_take() -> None:
    for path in MANIFESTS:
        for document in documents(path):
            for container in containers(document):
                words = [str(word) for word in container["args"]]
                if words[0] != "serve":
                    continue
                takes = float(words[words.index("--drain") + 1]) + float(words[words.index("--deadline") + 1]) / 1000
                assert document["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > takes


def test_the_ray_example_is_a_rayjob_whose_command_exists() -> None:
    (job,) = documents(RAY)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    program, *words = job["spec"]["entrypoint"].split()
    assert program == "rtformer-deploy"
    parse(words)
