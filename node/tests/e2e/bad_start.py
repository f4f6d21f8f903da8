"""Starts that cannot work say why: mistakes in a configuration, a data directory in use, a port in use; and garbage on the
cluster's port does no harm."""

import os
import random
import socket
import subprocess
import tempfile
from pathlib import Path

from testsite import Run, message, wait_for

GOOD = 'data_dir = "{dir}/data"\n[listen]\nimap = "127.0.0.1:{port}"\n'


def start(binary, *arguments, timeout=20, **environment):
    """Exit status and everything that was printed. A program that goes on running is a failure."""
    done = subprocess.run(
        [str(binary), *(str(argument) for argument in arguments)], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout + done.stderr


def mistakes_in_a_configuration(binary):
    cases = [
        ("unknown key", 'data_dir = "/tmp/x"\ncolour = "red"\n[listen]\n', 2, "colour"),
        ("unknown key in a section", 'data_dir = "/tmp/x"\n[listen]\nimapp = "127.0.0.1:1"\n', 3, "imaps"),
        ("not an address", 'data_dir = "/tmp/x"\n[listen]\nimap = "nonsense"\n', 3, ""),
        ("unknown role", 'data_dir = "/tmp/x"\nroles = ["stor"]\n[listen]\n', 2, "store"),
        ("wrong type", 'data_dir = 7\n[listen]\n', 1, "string"),
        ("not TOML", 'data_dir = "/tmp/x\n[listen]\n', 1, ""),
    ]
    for name, text, line, word in cases:
        with tempfile.TemporaryDirectory() as directory:
            config = Path(directory) / "everpost.toml"
            config.write_text(text)
            for command in (("run", "--config", config), ("cluster", "init", "--config", config)):
                code, said = start(binary, *command)
                assert code == 78, f"{name}: exit {code}: {said}"
                assert str(config) in said and f"line {line}" in said and word in said, f"{name}: {said}"


def mistakes_outside_of_the_file(binary):
    with tempfile.TemporaryDirectory() as directory:
        code, said = start(binary, "run", "--config", Path(directory) / "none.toml")
        assert code == 78 and "none.toml" in said, (code, said)
        config = Path(directory) / "everpost.toml"
        config.write_text(GOOD.format(dir=directory, port=1))
        code, said = start(binary, "run", "--config", config, EVERPOST_PLAIN_LOGIN="sometimes")
        assert code == 78 and "EVERPOST_PLAIN_LOGIN" in said and "loopback" in said, (code, said)
        # A node that was never made part of a cluster.
        code, said = start(binary, "run", "--config", config)
        assert code == 78 and "cluster init" in said, (code, said)


def usage(binary):
    assert start(binary, "nonsense")[0] == 2
    assert start(binary, "quickstart", "--nodes", "0")[0] == 2
    assert start(binary, "run")[0] == 2
    code, said = start(binary, "--help")
    assert code == 0 and "quickstart" in said
    assert start(binary, "--version")[0] == 0
    with tempfile.TemporaryDirectory() as directory:
        code, said = start(binary, "--dir", directory, "status")
        assert code == 69, (code, said)


def one_data_directory_for_two_nodes(site):
    # The same configuration as the running node's, as found beside its data.
    node = site.node(1)
    arguments = Path(f"/proc/{node['pid']}/cmdline").read_bytes().split(b"\0")
    assert b"--config" in arguments, arguments
    config = arguments[arguments.index(b"--config") + 1].decode()
    code, said = start(site.binary, "run", "--config", config)
    assert code != 0 and node["dir"] in said, (code, said)
    assert any(word in said for word in ("in use", "locked", "another", "running")), said
    site.deliver(1, [1], message("after-a-second-start"))


def port_in_use(site):
    # Another node, another directory, a port of the running one.
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "everpost.toml"
        taken = site.node(1)["imap"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            cluster = probe.getsockname()[1]
        config.write_text(f'data_dir = "{directory}/data"\n[listen]\ncluster = "127.0.0.1:{cluster}"\nimap = "{taken}"\n')
        code, said = start(site.binary, "cluster", "init", "--config", config)
        assert code == 0, (code, said)
        code, said = start(site.binary, "run", "--config", config)
        assert code != 0 and taken in said, (code, said)


def garbage_on_the_cluster_port(site):
    rng = random.Random(4)
    host, port = site.address(1, "cluster")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for number in range(3000):
            data = rng.randbytes(rng.randrange(1, 1400))
            if number % 3 == 0:
                # It looks like the first packet of QUIC version 1 (RFC 9000 17.2.2).
                data = bytes([0xC0 | rng.randrange(16)]) + b"\0\0\0\x01\x08" + rng.randbytes(8) + b"\x00" + rng.randbytes(1200)
            attacker.sendto(data, (host, port))
    for number in range(1, 11):
        site.deliver(1, [1], message(f"after-garbage-{number}"))
    states = {node["node"]: node["state"] for node in site.status(1)["nodes"]}
    assert len(states) == site.count and "unreachable" not in states.values(), states


def a_quickstart_is_stopped_and_started_again(site):
    site.everpost("quickstart", "stop", timeout=60)
    wait_for("the end of the nodes", lambda: not any(Path(f"/proc/{node['pid']}/exe").exists() for node in site.info["nodes"]), 10)
    site.restart_all()
    site.deliver(site.count, [1], message("after-a-restart"))


def main():
    run = Run(__doc__)
    args = run.parse()
    for test in (usage, mistakes_in_a_configuration, mistakes_outside_of_the_file):
        run.case(test.__name__.replace("_", " "), test, args.binary)
    with run.site(nodes=3, users=1) as site:
        if site:
            for test in (
                one_data_directory_for_two_nodes, port_in_use, garbage_on_the_cluster_port,
                a_quickstart_is_stopped_and_started_again,
            ):
                run.case(test.__name__.replace("_", " "), test, site)
            run.case("all copies agree", site.wait_equal)
    run.finish()


if __name__ == "__main__":
    main()
