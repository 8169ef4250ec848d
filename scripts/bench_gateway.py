#!/usr/bin/env python3
"""What a request through the gateway costs, beside going direct and beside other proxies.

All of them stand in front of the same mock upstream on this machine and take turns, round by round; what is printed are
medians over the rounds, and ratios within a round. Started by `make bench-gateway`, which builds and installs what it needs.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

KEY = "bench-key-0123456789"
CHAT = json.dumps(
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant who answers briefly."},
            {"role": "user", "content": "Why is the sky blue, and why is it red in the evening?"},
        ],
        "max_tokens": 64,
        "temperature": 0.2,
    }
)
# Of the models that pass through, that find out how much their deployment can take, and the same where a stream takes no time.
ADAPTIVE_CHAT = CHAT.replace('"m"', '"adaptive"')
ADAPTIVE_AT_ONCE_CHAT = CHAT.replace('"m"', '"adaptive-at-once"')
V1 = json.dumps(
    {
        "prompt": "Why is the sky blue, and why is it red in the evening? Answer briefly, please.",
        "max_new_tokens": 64,
        "temperature": 0.2,
    }
)
CHAT_PATH = "/v1/chat/completions"
V1_PATH = "/v1/llm/completions-sync?model_endpoint_name=at-once"

CONFIG = """
listen = "127.0.0.1:0"
[models.m]
deployments = [{{ url = "http://{upstream}/v1", model = "m", admission = "off" }}]
price = {{ input_usd_per_million = 0.15, output_usd_per_million = 0.60 }}
[models.at-once]
deployments = [{{ url = "http://{upstream_at_once}/v1", model = "m", admission = "off" }}]
[models.adaptive]
deployments = [{{ url = "http://{upstream}/v1", model = "m" }}]
[models.adaptive-at-once]
deployments = [{{ url = "http://{upstream_at_once}/v1", model = "m" }}]
[callers.bench]
team = "research"
api_key_env = "BENCH_KEY"
[[policies]]
name = "per-key"
per = ["key", "model"]
requests = {{ limit = 100_000_000, window = "1m" }}
tokens = {{ limit = 10_000_000_000, window = "1m" }}
concurrency = 4096
[[policies]]
name = "per-team"
match = {{ team = "research" }}
per = ["team"]
requests = {{ limit = 100_000_000, window = "1m" }}
usd = {{ limit = 500_000, window = "calendar-day" }}
[[policies]]
name = "per-address"
per = ["address"]
requests = {{ limit = 100_000_000, window = "1m" }}
[[policies]]
name = "all"
input_tokens = {{ limit = 10_000_000_000, window = "1m" }}
output_tokens = {{ limit = 10_000_000_000, window = "1m" }}
"""

NGINX = """
worker_processes 2;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    keepalive_requests 1000000000;
    upstream mock {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""

WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.body = [[{body}]]
"""


@dataclasses.dataclass
class Contender:
    name: str
    address: str
    # Whose processor time counts; none when going direct.
    process: int | None
    path: str = CHAT_PATH
    # Of whole answers, and of streams; none where these are not measured.
    body: str = CHAT
    streamed: str | None = CHAT


@dataclasses.dataclass
class Figures:
    rate: list[float] = dataclasses.field(default_factory=list)
    median_us: list[float] = dataclasses.field(default_factory=list)
    p99_us: list[float] = dataclasses.field(default_factory=list)
    cpu_us: list[float] = dataclasses.field(default_factory=list)


# --- Processes ---------------------------------------------------------------------------------------------------


def start(stack: contextlib.ExitStack, command: list[str], **options) -> subprocess.Popen:
    """Ended, with all that it has started, when the stack is left."""
    process = subprocess.Popen(command, start_new_session=True, **options)

    def end() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)

    stack.callback(end)
    return process


def first_line(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_it_answers(address: str) -> None:
    request = urllib.request.Request(f"http://{address}{CHAT_PATH}", CHAT.encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {KEY}")
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
                return
        except OSError as error:
            if time.monotonic() > until:
                sys.exit(f"{address} does not answer: {error}")
            time.sleep(0.1)


def processor_seconds(process: int) -> float:
    """Of the process and all of its children."""
    seconds, waiting = 0.0, [process]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
    return seconds


def contenders(stack: contextlib.ExitStack, arguments: argparse.Namespace, folder: Path) -> list[Contender]:
    upstream = start(stack, [arguments.parts, "upstream"], stdout=subprocess.PIPE, text=True)
    upstream_address = first_line(upstream)
    # Its streams take no time, so that putting one together can be measured as a whole answer is.
    at_once = [arguments.parts, "upstream", "--chunks", "16", "--chunk-ms", "0"]
    at_once_address = first_line(start(stack, at_once, stdout=subprocess.PIPE, text=True))

    bare = start(stack, [arguments.parts, "bare-proxy", upstream_address], stdout=subprocess.PIPE, text=True)
    bare_address = first_line(bare)

    nginx_address = f"127.0.0.1:{(port := free_port())}"
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, upstream=upstream_address, port=port))
    nginx = start(stack, ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "nginx-error.log")])

    router_address = f"127.0.0.1:{(port := free_port())}"
    router_command = [arguments.router, "--host", "127.0.0.1", "--port", str(port), "--policy", "round_robin"]
    router_command += ["--worker-urls", f"http://{upstream_address}", "--prometheus-port", str(free_port())]
    router_command += ["--log-level", "warning"]
    router_log = stack.enter_context(open(folder / "router.log", "w"))
    router = start(stack, router_command, stdout=router_log, stderr=router_log)

    config = folder / "llm-engine.toml"
    config.write_text(CONFIG.format(upstream=upstream_address, upstream_at_once=at_once_address))
    log = stack.enter_context(open(folder / "llm-engine.log", "w"))
    ours = start(
        stack,
        [arguments.server, "--log-format", "json", "serve", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "BENCH_KEY": KEY, "XDG_STATE_HOME": str(folder)},
    )
    our_address = None
    while our_address is None:
        line = ours.stdout.readline()
        if not line:
            sys.exit(f"the server did not start:\n{(folder / 'llm-engine.log').read_text()}")
        if found := re.search(r"127\.0\.0\.1:[1-9]\d*", line):
            our_address = found.group()

    all_of_them = [
        Contender("direct", upstream_address, None),
        Contender("nginx", nginx_address, nginx.pid),
        Contender("bare proxy", bare_address, bare.pid),
        Contender("vllm-router", router_address, router.pid),
        Contender("llm-engine", our_address, ours.pid),
        Contender("llm-engine, adaptive (16 chunks upstream)", our_address, ours.pid, CHAT_PATH, ADAPTIVE_AT_ONCE_CHAT, ADAPTIVE_CHAT),
        Contender("llm-engine, v1 (16 chunks upstream)", our_address, ours.pid, V1_PATH, V1, None),
    ]
    chosen = [one for one in all_of_them if re.search(arguments.only, one.name)]
    for contender in chosen:
        wait_until_it_answers(contender.address)
        warm_up(contender, max(arguments.connections), folder)
    return chosen


# --- Measuring -----------------------------------------------------------------------------------------------------


def in_microseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def wrk(contender: Contender, connections: int, seconds: float, folder: Path) -> str:
    script = folder / "request.lua"
    script.write_text(WRK.format(key=KEY, body=contender.body))
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:g}s", "--latency"]
    command += ["--script", str(script), f"http://{contender.address}{contender.path}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def warm_up(contender: Contender, connections: int, folder: Path) -> None:
    """Who finds out how much can be taken begins carefully, and refuses what may be too much."""
    wrk(contender, connections, 5, folder)


def whole_answers(contender: Contender, connections: int, seconds: float, folder: Path, figures: Figures) -> None:
    before = processor_seconds(contender.process) if contender.process else 0.0
    output = wrk(contender, connections, seconds, folder)
    after = processor_seconds(contender.process) if contender.process else 0.0
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"{contender.name} refused some requests:\n{output}")
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    figures.rate.append(float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)))
    figures.median_us.append(in_microseconds(re.search(r"^\s+50%\s+(\S+)", output, re.M).group(1)))
    figures.p99_us.append(in_microseconds(re.search(r"^\s+99%\s+(\S+)", output, re.M).group(1)))
    figures.cpu_us.append((after - before) * 1e6 / requests)


def streams(contender: Contender, callers: int, seconds: float, parts: str, figures: Figures) -> None:
    streamed = contender.streamed[:-1] + ', "stream": true}'
    command = [parts, "streams", contender.address, "--api-key", KEY, "--body", streamed]
    command += ["--callers", str(callers), "--seconds", str(seconds)]
    before = processor_seconds(contender.process) if contender.process else 0.0
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = processor_seconds(contender.process) if contender.process else 0.0
    measured = json.loads(output)
    figures.rate.append(measured["streams"] / seconds)
    figures.median_us.append(measured["median_us"])
    figures.p99_us.append(measured["p99_us"])
    figures.cpu_us.append((after - before) * 1e6 / measured["streams"])


def rounds(chosen: list[Contender], count: int, measure) -> dict[str, Figures]:
    figures = {contender.name: Figures() for contender in chosen}
    for _ in range(count):
        for contender in random.sample(chosen, len(chosen)):
            measure(contender, figures[contender.name])
    return figures


# --- Tables --------------------------------------------------------------------------------------------------------


def ratio(ours: list[float], theirs: list[float]) -> str:
    if not all(theirs):
        return "–"
    ratios = [our / their for our, their in zip(ours, theirs)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


def print_table(title: str, figures: dict[str, Figures], of_streams: bool) -> None:
    what = "streams/s" if of_streams else "requests/s"
    delay = "first chunk" if of_streams else "latency"
    print(f"\n### {title}\n")
    print(f"| | {what} | {delay}, median | p99 | CPU per {'stream' if of_streams else 'request'} |")
    print("|---|---|---|---|---|")
    for name, one in figures.items():
        cpu = statistics.median(one.cpu_us)
        row = [f"{statistics.median(one.rate):,.0f}", f"{statistics.median(one.median_us):,.0f} µs"]
        row += [f"{statistics.median(one.p99_us):,.0f} µs", f"{cpu:,.1f} µs" if cpu else "–"]
        print(f"| {name} | {' | '.join(row)} |")
    ours = [name for name in figures if name.startswith("llm-engine")]
    others = [name for name in figures if name not in ours]
    if not ours or not others:
        return
    print(f"\n| | {what}, ratio | {'first chunk later by' if of_streams else 'latency, ratio'} | CPU, ratio |")
    print("|---|---|---|---|")
    for our in ours:
        for other in others:
            a, b = figures[our], figures[other]
            if of_streams:
                later = statistics.median(x - y for x, y in zip(a.median_us, b.median_us))
                latency = f"{later:,.0f} µs"
            else:
                latency = ratio(a.median_us, b.median_us)
            print(f"| {our} / {other} | {ratio(a.rate, b.rate)} | {latency} | {ratio(a.cpu_us, b.cpu_us)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="target/release/llm-engine")
    parser.add_argument("--parts", default="target/release/gateway-bench")
    parser.add_argument("--router", default=".venv-bench/bin/vllm-router")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, nargs="*", default=[16, 64])
    parser.add_argument("--callers", type=int, nargs="*", default=[16], help="who read streams at the same time")
    parser.add_argument("--only", default="", help="a regular expression for the names of the contenders")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.chmod(folder, 0o755)
        chosen = contenders(stack, arguments, folder)
        print(f"{platform.machine()}, {os.cpu_count()} cores; {arguments.rounds} rounds of {arguments.seconds:g} s each")
        for connections in arguments.connections:
            measured = rounds(
                chosen,
                arguments.rounds,
                lambda one, figures: whole_answers(one, connections, arguments.seconds, folder, figures),
            )
            print_table(f"Whole answers, {connections} connections", measured, False)
        streaming = [contender for contender in chosen if contender.streamed]
        for callers in arguments.callers:
            measured = rounds(
                streaming,
                arguments.rounds,
                lambda one, figures: streams(one, callers, arguments.seconds, arguments.parts, figures),
            )
            print_table(f"Streams of 50 chunks, {callers} callers", measured, True)


if __name__ == "__main__":
    main()
