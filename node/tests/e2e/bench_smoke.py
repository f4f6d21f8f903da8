"""The load generator against a site: every kind of load works, and its JSON says so. The figures are for reading, not for passing."""

import json
import subprocess

from testsite import Run


def bench(run, site, *arguments):
    program = run.args.binary.parent / "everpost-bench"
    command = [str(program), "--quickstart", str(site.dir / "quickstart.json"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("{"), (done.stdout, done.stderr)
    return json.loads(done.stdout)


def every_load(run, site, *options):
    for result in bench(run, site, *options, "run", "--seconds", str(run.args.seconds), "--connections", "8")["results"]:
        print(
            f"        {result['test']:7} {result['per_second']:9.1f}/s  p50 {result['p50_micros'] / 1000:8.2f} ms  "
            f"p99 {result['p99_micros'] / 1000:8.2f} ms  max {result['max_micros'] / 1000:8.2f} ms",
            flush=True,
        )
        assert result["errors"] == 0 and result["operations"] > 0, result


def idle_sessions(run, site):
    result = bench(run, site, "idle", "--connections", "200", "--hold", "1")["idle"]
    assert result["open"] == result["alive"] == 200 and result["errors"] == 0, result


def main():
    run = Run(__doc__)
    run.parser.add_argument("--seconds", type=int, default=3)
    run.parse()
    with run.site(users=8) as site:
        if site:
            run.case("every load", every_load, run, site)
            run.case("every load over TLS", every_load, run, site, "--tls")
            run.case("idle sessions", idle_sessions, run, site)
            run.case("all copies agree", site.wait_equal)
    run.finish()


if __name__ == "__main__":
    main()
