"""Ctrl-C, cancelled tasks, the end of the process, forks: what happens to calls that are under way."""

import asyncio
import os
import signal
import statistics
import threading
import time

import pytest
from conftest import start_program
from scripted import Answer, piece, refusal

QUESTION = {"model": "llama-7b", "prompt": "Why?", "max_new_tokens": 10, "temperature": 0.2}
# In this time the program has to be on its way out.
SOON_SECONDS = 0.05

INTERRUPTED = """
import json, sys, time, llmengine
question = dict(model="llama-7b", prompt="Why?", max_new_tokens=10, temperature=0.2)
{before}
print("calling", flush=True)
try:
    {call}
except KeyboardInterrupt:
    print(json.dumps(time.time()), flush=True)
"""
WAYS = {
    "create": ("", "llmengine.Completion.create(**question)"),
    "a stream": ("", "list(llmengine.Completion.create(**question, stream=True))"),
    "acreate": ("import asyncio", "asyncio.run(llmengine.Completion.acreate(**question))"),
    "retry": ("@llmengine.retry\ndef call():\n    return llmengine.Completion.create(**question)", "call()"),
}


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_ends_a_call_soon_and_the_server_is_told(scripted, tmp_path, way):
    is_stream = way == "a stream"
    server = scripted(Answer(events=[piece("a"), 30]) if is_stream else Answer(delay=30))
    before, call = WAYS[way]
    process = start_program(tmp_path, INTERRUPTED.format(before=before, call=call), server.address)
    try:
        assert process.stdout.readline() == "calling\n"
        wait_until(lambda: server.asked)
        time.sleep(0.2)
        pressed = time.time()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    took = float(output) - pressed
    print(f"{way}: {took * 1000:.0f} ms")
    assert took < SOON_SECONDS
    assert [key(cancel) for cancel in server.cancels] == [key(asked) for asked in server.asked]


def test_ctrl_c_ends_a_wait_between_attempts_soon(scripted, tmp_path):
    server = scripted(lambda asked: refusal(30))
    source = INTERRUPTED.format(before="", call="llmengine.Completion.create(**question)")
    process = start_program(tmp_path, source, server.address)
    try:
        wait_until(lambda: server.asked)
        time.sleep(0.2)
        pressed = time.time()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert float(output.splitlines()[-1]) - pressed < SOON_SECONDS


def test_a_cancelled_task_gives_up_its_call_soon(client, scripted):
    server = scripted(Answer(delay=30))
    llmengine = client(server.address)

    async def cancel_one():
        asked = len(server.asked)
        task = asyncio.ensure_future(llmengine.Completion.acreate(**QUESTION))
        while len(server.asked) == asked:
            await asyncio.sleep(0.001)
        begun, cancels = time.monotonic(), len(server.cancels)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ended = time.monotonic() - begun
        while len(server.cancels) == cancels:
            await asyncio.sleep(0.001)
        return ended, time.monotonic() - begun

    async def cancel_some():
        return [await cancel_one() for _ in range(20)]

    times = asyncio.run(cancel_some())
    ended, told = map(statistics.median, zip(*times))
    print(f"the task ends after {ended * 1000:.1f} ms, the server knows after {told * 1000:.1f} ms")
    assert max(ended for ended, _ in times) < SOON_SECONDS
    assert told < SOON_SECONDS
    assert {key(cancel) for cancel in server.cancels} == {key(asked) for asked in server.asked}


def test_a_timeout_of_asyncio_gives_up_the_call(client, scripted):
    server = scripted(Answer(delay=30))
    llmengine = client(server.address)

    async def call():
        await asyncio.wait_for(llmengine.Completion.acreate(**QUESTION), 0.2)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(call())
    wait_until(lambda: server.cancels)


def test_threads_run_while_others_wait(client, scripted):
    llmengine = client(scripted(Answer(delay=0.3)).address)
    llmengine.Completion.create(**QUESTION)
    threads = [threading.Thread(target=llmengine.Completion.create, kwargs=QUESTION) for _ in range(10)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 1


FORKED = """
import os, json, llmengine, threading
question = dict(model="llama-7b", prompt="Why?", max_new_tokens=10, temperature=0.2)
llmengine.Completion.create(**question)
# Calls of the parent are under way while it forks, some at any point: the child must not wait in their line, nor for a lock.
forking = True
def call():
    while forking:
        llmengine.Completion.create(**question)
threads = [threading.Thread(target=call) for _ in range(8)]
for thread in threads:
    thread.start()
children = []
for number in range(12):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        text = llmengine.Completion.create(**question).output.text
        waits = list(llmengine.Backoff.default().waits(3))
        os.write(writing, json.dumps([text, waits]).encode())
        os._exit(0)
    os.close(writing)
    children.append((child, reading))
told = []
for child, reading in children:
    told.append(json.loads(os.read(reading, 1000)))
    assert os.waitpid(child, 0)[1] == 0
forking = False
for thread in threads:
    thread.join()
assert llmengine.Completion.create(**question).output.text == " light"
print(json.dumps(told))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_process_makes_calls_of_its_own(scripted, program):
    told = program(FORKED, scripted(Answer(delay=0.01)).address, timeout=30)
    assert [text for text, _ in told] == [" light"] * 12
    # They wait at random, not all the same.
    assert len({tuple(waits) for _, waits in told}) == 12


LEFT = """
import asyncio, llmengine
question = dict(model="llama-7b", prompt="Why?", max_new_tokens=10, temperature=0.2)
async def main():
    task = asyncio.ensure_future(llmengine.Completion.acreate(**question))
    await asyncio.sleep(0.3)
asyncio.run(main())
print("null")
"""


def test_what_is_left_when_the_process_ends_is_cancelled(scripted, program):
    server = scripted(Answer(delay=30))
    program(LEFT, server.address, timeout=10)
    assert [key(cancel) for cancel in server.cancels] == [key(asked) for asked in server.asked]


def test_it_can_be_used_from_one_event_loop_after_the_other(client, scripted):
    llmengine = client(scripted(Answer()).address)
    for _ in range(5):
        assert asyncio.run(llmengine.Completion.acreate(**QUESTION)).output.text == " light"


def key(asked):
    return asked.headers.get("idempotency-key") or asked.path.partition("?")[0].rpartition("/")[2]


def wait_until(holds, timeout=10):
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
