"""What a call costs that succeeds at once, under our `retry`, tenacity's and backoff's: sync and async, all taking turns.

    .venv-package/bin/python crates/llmengine-python/benches/overhead.py
"""

import asyncio
import statistics
import time

import backoff
import llmengine
import tenacity

CALLS = 2_000
ROUNDS = 31


def function(number):
    return number


async def coroutine_function(number):
    return number


DECORATIONS = {
    "none": lambda called: called,
    "llmengine.retry": llmengine.retry,
    "tenacity.retry": tenacity.retry(wait=tenacity.wait_random_exponential(min=1, max=60), stop=tenacity.stop_after_attempt(6)),
    "backoff.on_exception": backoff.on_exception(backoff.expo, Exception, max_tries=6),
}


def sync_nanoseconds(called):
    begun = time.perf_counter_ns()
    for number in range(CALLS):
        called(number)
    return (time.perf_counter_ns() - begun) / CALLS


async def async_nanoseconds(called):
    begun = time.perf_counter_ns()
    for number in range(CALLS):
        await called(number)
    return (time.perf_counter_ns() - begun) / CALLS


def medians(function, measure):
    decorated = {name: decorate(function) for name, decorate in DECORATIONS.items()}
    rounds = {name: [] for name in decorated}
    for _ in range(ROUNDS):
        for name, called in decorated.items():
            rounds[name].append(measure(called))
    return {name: statistics.median(times) for name, times in rounds.items()}


def main():
    kinds = {
        "sync": medians(function, sync_nanoseconds),
        "async": medians(coroutine_function, lambda called: asyncio.run(async_nanoseconds(called))),
    }
    for kind, found in kinds.items():
        print(f"{kind}: microseconds on top of the call itself, which takes {found['none'] / 1000:.3f}")
        for name, nanoseconds in found.items():
            if name != "none":
                print(f"  {name:22} {(nanoseconds - found['none']) / 1000:8.3f}")


if __name__ == "__main__":
    main()
