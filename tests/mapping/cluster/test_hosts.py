"""Three hosts in network namespaces of their own, joined by a bridge; one drops off the network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..small_blocks import assert_same_bytes
from . import scenes

pytest.importorskip("ray")

pytestmark = pytest.mark.slow
RAY = str(Path(sys.executable).with_name("ray"))
BRIDGE = "terradelta0"
HOSTS = {f"terradelta{number}": f"10.77.0.{number}" for number in (1, 2, 3)}
PORT = 6399
SETTINGS = {**scenes.SETTINGS, "RAY_AUTH_MODE": "disabled"}


def run(*line, check=True):
    done = subprocess.run(
        line, check=False, capture_output=True, text=True, env={**os.environ, **SETTINGS}
    )
    assert done.returncode == 0 or not check, (line, done.stdout, done.stderr)
    return done


def on(host, *line, check=True):
    return run("ip", "netns", "exec", host, *line, check=check)


@pytest.fixture
def hosts():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    bridge = run("ip", "link", "add", BRIDGE, "type", "bridge", check=False)
    if bridge.returncode:
        pytest.skip(f"no network namespaces here: {bridge.stderr.strip()}")
    try:
        run("ip", "link", "set", BRIDGE, "up")
        for host, address in HOSTS.items():
            run("ip", "netns", "add", host)
            run("ip", "link", "add", f"{host}v", "type", "veth", "peer", "eth0", "netns", host)
            run("ip", "link", "set", f"{host}v", "master", BRIDGE, "up")
            on(host, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            on(host, "ip", "link", "set", "eth0", "up")
            on(host, "ip", "link", "set", "lo", "up")
        yield list(HOSTS)
    finally:
        for host in HOSTS:
            for pid in run("ip", "netns", "pids", host, check=False).stdout.split():
                run("kill", "-9", pid, check=False)
            run("ip", "netns", "delete", host, check=False)
            run("ip", "link", "delete", f"{host}v", check=False)
        run("ip", "link", "delete", BRIDGE, check=False)


def test_a_host_drops_off_the_network(hosts, large_model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    scene, whole = scenes.make_scene(tmp_path, large_model_folder)
    head, *others = hosts
    address = f"{HOSTS[head]}:{PORT}"
    line = ("--num-cpus=1", "--disable-usage-stats")
    ip = f"--node-ip-address={HOSTS[head]}"
    on(head, RAY, "start", "--head", ip, f"--port={PORT}", "--include-dashboard=false", *line)
    for host in others:
        ip = f"--node-ip-address={HOSTS[host]}"
        on(host, RAY, "start", f"--address={address}", ip, *line)
    output = tmp_path / "out"
    process = scenes.start(
        scene, large_model_folder, output, address, prefix=("ip", "netns", "exec", head)
    )
    scenes.wait_for_blocks(process, output, 20)
    # As where its power fails: nothing says goodbye.
    on(others[0], "ip", "link", "set", "eth0", "down")
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert "a worker was lost on" in log, log
    assert_same_bytes(output, whole)
