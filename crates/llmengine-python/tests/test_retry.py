"""`@retry`: what is called again, and when it stops, on the same failures as with tenacity and backoff."""

import asyncio
import contextlib
import functools
import gc
import inspect
import itertools
import pickle
import threading
import weakref

import backoff
import pytest
import tenacity
from llmengine import Attempt, Backoff, Budget, Stop, errors, retry

NO_WAIT = Backoff.constant(0)


class Busy(Exception):
    """Comes again."""


class Wrong(Exception):
    """Comes again too, but nobody wants it to be tried."""


def failing(*failures, result="there"):
    """A function that raises these, one a call, and then returns; it counts its calls."""
    left = iter(failures)

    def function():
        function.calls += 1
        failure = next(left, None)
        if failure is not None:
            raise failure
        return result

    function.calls = 0
    return function


def returning(*results):
    left = iter(results)

    def function():
        function.calls += 1
        return next(left)

    function.calls = 0
    return function


def outcome(decorated):
    try:
        return decorated()
    except Exception as error:
        return type(error)


def as_async(function):
    async def called():
        return function()

    return called


def test_it_returns_what_is_returned_in_the_end():
    function = failing(Busy(), Busy())
    assert retry(wait=NO_WAIT)(function)() == "there"
    assert function.calls == 3
    assert retry(failing())() == "there"


def test_it_raises_the_original_with_the_record_of_what_was_tried():
    function = failing(*[Busy("no")] * 9)
    with pytest.raises(Busy, match="^no$") as raised:
        retry(function, wait=NO_WAIT)()
    assert function.calls == 6
    records = raised.value.attempts
    assert [record.number for record in records] == [1, 2, 3, 4, 5, 6]
    assert {record.failure for record in records} == {"Busy: no"}
    assert raised.value.gave_up == "no attempts are left"
    assert pickle.loads(pickle.dumps(records)) == records
    assert "Attempt(number=1, began=0.000" in repr(records[0])
    assert isinstance(records[0], Attempt)


def test_coroutine_functions_are_awaited():
    function = failing(Busy(), Busy())
    decorated = retry(wait=NO_WAIT)(as_async(function))
    assert inspect.iscoroutinefunction(decorated)
    assert asyncio.run(decorated()) == "there"
    assert function.calls == 3
    function = failing(*[Busy()] * 9)
    with pytest.raises(Busy) as raised:
        asyncio.run(retry(as_async(function), wait=NO_WAIT, max_attempts=4)())
    assert len(raised.value.attempts) == function.calls == 4


def test_whatever_can_be_called():
    class Callable:
        def __init__(self):
            self.function = failing(Busy())

        def __call__(self):
            return self.function()

        @retry(wait=NO_WAIT)
        def method(self):
            return self.function()

    class AsyncCallable(Callable):
        async def __call__(self):
            return self.function()

    assert retry(Callable(), wait=NO_WAIT)() == "there"
    assert Callable().method() == "there"
    assert asyncio.run(retry(AsyncCallable(), wait=NO_WAIT)()) == "there"
    assert retry(functools.partial(failing(Busy())), wait=NO_WAIT)() == "there"
    coroutine_function = as_async(failing(Busy()))
    assert asyncio.run(retry(functools.partial(coroutine_function), wait=NO_WAIT)()) == "there"
    # Nothing says that this returns a coroutine, until it does.
    for settings in [{}, {"budget": Budget()}, {"on_result": lambda result: result != "there"}]:
        coroutine_function = as_async(failing(Busy()))
        assert asyncio.run(retry(lambda: coroutine_function(), wait=NO_WAIT, **settings)()) == "there"


def test_generators_are_refused():
    def generator():
        yield 1

    async def async_generator():
        yield 1

    class Generator:
        def __call__(self):
            yield 1

    for function in [generator, functools.partial(generator), Generator()]:
        with pytest.raises(TypeError, match="generator function: .* in the `for` loop"):
            retry(function)
    with pytest.raises(TypeError, match="async generator function: .* in the `async for` loop"):
        retry(wait=NO_WAIT)(async_generator)
    with pytest.raises(TypeError, match="below @staticmethod"):
        retry(staticmethod(generator))
    with pytest.raises(TypeError, match="can't be called"):
        retry(wait=NO_WAIT)("this")


def test_a_hint_is_believed():
    slept = []
    hinted = Busy()
    hinted.retry_after = 7
    booked = Busy()
    booked.retry_after, booked.is_booked = 3.25, True
    decorated = retry(failing(hinted, booked), wait=Backoff.constant(1), sleep=slept.append)
    assert decorated() == "there"
    assert slept == [7, 3.25]
    too_long = Busy()
    too_long.retry_after = 121
    with pytest.raises(Busy) as raised:
        retry(failing(too_long), sleep=slept.append)()
    assert raised.value.gave_up == "asked to wait for 2m 1s, longer than allowed"


def test_hints_of_other_clients_are_read_from_their_answers():
    class Response:
        headers = {"Retry-After": "9"}

    slept = []
    error = Busy()
    error.response = Response()
    assert retry(failing(error), wait=Backoff.constant(1), sleep=slept.append)() == "there"
    assert slept == [9]


def test_what_says_of_itself_that_it_would_fail_again_is_not_tried_again():
    for error in [errors.BadRequestError("no"), errors.NotFoundError("no")]:
        function = failing(error)
        with pytest.raises(type(error)):
            retry(function, wait=NO_WAIT)()
        assert function.calls == 1
    transient = errors.RateLimitExceededError("soon")
    transient.is_transient = True
    assert retry(failing(transient), wait=NO_WAIT)() == "there"
    # Who names it, means it.
    assert retry(failing(errors.NotFoundError("no")), on=errors.NotFoundError, wait=NO_WAIT)() == "there"


def test_deadline_event_and_budget():
    with pytest.raises(Busy) as raised:
        retry(failing(*[Busy()] * 9), wait=Backoff.constant(10), deadline=5)()
    assert raised.value.gave_up == "another attempt would be after the deadline"

    event = threading.Event()
    function = failing(*[Busy()] * 99)
    decorated = retry(function, wait=NO_WAIT, stop=Stop.when_set(event), before_wait=lambda *_: function.calls == 7 and event.set())
    with pytest.raises(Busy):
        decorated()
    assert function.calls == 8

    budget = Budget()
    function = failing(*[Busy()] * 999)
    decorated = retry(function, wait=NO_WAIT, budget=budget)
    for _ in range(100):
        with pytest.raises(Busy) as raised:
            decorated()
    assert function.calls == 120
    assert raised.value.gave_up == "too many calls fail for all of them to be tried again"


def test_what_has_failed_is_forgotten_at_once():
    """An exception that held its own frames would keep alive what they hold until the collector comes."""

    class Large:
        pass

    def decorated(is_async, **settings):
        def function(large):
            raise Busy

        async def coroutine_function(large):
            raise Busy

        call = retry(coroutine_function if is_async else function, wait=NO_WAIT, max_attempts=3, **settings)
        return (lambda large: asyncio.run(call(large))) if is_async else call

    for is_async, settings in itertools.product([False, True], [{}, {"budget": Budget()}]):
        call, large = decorated(is_async, **settings), Large()
        gone = weakref.ref(large)
        gc.collect()
        gc.disable()
        try:
            with contextlib.suppress(Busy):
                call(large)
            del large
            assert is_async or gone() is None
        finally:
            gc.enable()


def test_keyboard_interrupt_and_cancelling_are_no_failures():
    function = failing(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        retry(function, wait=NO_WAIT)()
    assert function.calls == 1

    async def cancelled():
        task = asyncio.ensure_future(retry(as_async(failing(*[Busy()] * 9)), wait=Backoff.constant(60))())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_on_purpose_success_is_not_tried_again():
    """The one difference: two of tenacity's predicates also try again what has succeeded. Here "not" means exceptions only."""
    for predicate in [tenacity.retry_unless_exception_type(Wrong), tenacity.retry_if_not_exception_message("busy")]:
        function = failing()
        stop = tenacity.stop_after_attempt(5)
        with pytest.raises(tenacity.RetryError):
            tenacity.retry(retry=predicate, wait=tenacity.wait_none(), stop=stop)(function)()
        assert function.calls == 5
    function = failing()
    assert retry(function, on=lambda error: not isinstance(error, Wrong), wait=NO_WAIT)() == "there"
    assert function.calls == 1


# What tenacity and backoff do with the same failures. Each is a row: theirs (or None), ours; how often they call, and what
# comes of it, has to be the same.
STOPS = [
    ({"stop": tenacity.stop_after_attempt(1)}, {"max_tries": 1}, {"max_attempts": 1}),
    ({"stop": tenacity.stop_after_attempt(4)}, {"max_tries": 4}, {"max_attempts": 4}),
    ({"stop": tenacity.stop_after_attempt(4)}, {"max_tries": 4}, {"stop": Stop.after_attempts(4)}),
    ({"stop": tenacity.stop_never}, {}, {"stop": Stop.never()}),
    ({"stop": tenacity.stop_after_delay(0)}, {"max_time": 0}, {"stop": Stop.after(0)}),
    ({"stop": tenacity.stop_before_delay(0)}, None, {"stop": Stop.before(0)}),
    (
        {"stop": tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(60)},
        {"max_tries": 3, "max_time": 60},
        {"stop": Stop.after_attempts(3) | Stop.after(60)},
    ),
    (
        {"stop": tenacity.stop_after_attempt(3) & tenacity.stop_after_delay(0)},
        None,
        {"stop": Stop.after_attempts(3) & Stop.after(0)},
    ),
]


@pytest.mark.parametrize(("theirs", "backoffs", "ours"), STOPS)
@pytest.mark.parametrize("failures", [0, 1, 2, 3, 5, 8])
def test_it_stops_when_they_do(theirs, backoffs, ours, failures):
    results = []
    decorations = [
        tenacity.retry(wait=tenacity.wait_none(), reraise=True, **theirs),
        retry(wait=NO_WAIT, **ours),
    ]
    if backoffs is not None:
        decorations.append(backoff.on_exception(backoff.constant, Busy, interval=0, jitter=None, **backoffs))
    for decorate in decorations:
        function = failing(*[Busy()] * failures)
        results.append((outcome(decorate(function)), function.calls))
    assert len(set(results)) == 1, results


def test_an_event_stops_it_as_it_stops_tenacity():
    results = []
    for theirs in [True, False]:
        event = threading.Event()
        calls = itertools.count(1)

        def function():
            if next(calls) == 3:
                event.set()
            raise Busy

        if theirs:
            stop = tenacity.stop_when_event_set(event)
            decorated = tenacity.retry(wait=tenacity.wait_none(), stop=stop, reraise=True)(function)
        else:
            decorated = retry(function, wait=NO_WAIT, stop=Stop.when_set(event))
        results.append((outcome(decorated), next(calls)))
    assert results == [(Busy, 4)] * 2


def cause_of(error):
    return isinstance(error.__cause__, Busy)


CAUSED = Wrong("it")
CAUSED.__cause__ = Busy()
PREDICATES = [
    (tenacity.retry_if_exception_type(Busy), (Busy, None), Busy),
    (tenacity.retry_if_exception_type((Busy, Wrong)), ((Busy, Wrong), None), (Busy, Wrong)),
    (tenacity.retry_if_not_exception_type(Wrong), (Exception, lambda error: isinstance(error, Wrong)), lambda error: not isinstance(error, Wrong)),
    (tenacity.retry_if_exception(lambda error: "y" in str(error)), (Exception, lambda error: "y" not in str(error)), lambda error: "y" in str(error)),
    (tenacity.retry_if_exception_message(match="bus"), None, lambda error: str(error).startswith("bus")),
    (tenacity.retry_if_exception_cause_type(Busy), None, cause_of),
    (
        tenacity.retry_any(tenacity.retry_if_exception_type(Wrong), tenacity.retry_if_exception_message("busy")),
        None,
        lambda error: isinstance(error, Wrong) or str(error) == "busy",
    ),
    (
        tenacity.retry_all(tenacity.retry_if_exception_type(Busy), tenacity.retry_if_exception_message("busy")),
        None,
        lambda error: isinstance(error, Busy) and str(error) == "busy",
    ),
]
SCRIPTS = [[], [Busy("busy")], [Wrong("it")], [CAUSED], [Busy("busy"), Wrong("it")], [Wrong("busy"), Busy("it")], [Busy("by")] * 9]


@pytest.mark.parametrize(("theirs", "backoffs", "ours"), PREDICATES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_it_tries_again_what_they_do(theirs, backoffs, ours, script):
    stop = tenacity.stop_after_attempt(5)
    decorations = [
        tenacity.retry(retry=theirs, wait=tenacity.wait_none(), stop=stop, reraise=True),
        retry(on=ours, wait=NO_WAIT, max_attempts=5),
    ]
    if backoffs is not None:
        kind, giveup = backoffs
        giveup = giveup or (lambda error: False)
        decorations.append(
            backoff.on_exception(backoff.constant, kind, interval=0, jitter=None, max_tries=5, giveup=giveup)
        )
    results = []
    for decorate in decorations:
        function = failing(*script)
        results.append((outcome(decorate(function)), function.calls))
    assert len(set(results)) == 1, results


@pytest.mark.parametrize("results", [["good"], ["", "good"], ["", None, "", "good"], [""] * 9])
def test_results_are_judged_as_they_judge_them(results):
    def is_bad(result):
        return not result

    theirs = returning(*results)
    stop = tenacity.stop_after_attempt(5)
    retrying = tenacity.retry(retry=tenacity.retry_if_result(is_bad), wait=tenacity.wait_none(), stop=stop)(theirs)
    backoffs = returning(*results)
    last = backoff.on_predicate(backoff.constant, is_bad, interval=0, jitter=None, max_tries=5)(backoffs)()
    ours = returning(*results)
    decorated = retry(ours, on_result=is_bad, wait=NO_WAIT, max_attempts=5)
    if is_bad(last):
        with pytest.raises(tenacity.RetryError):
            retrying()
        with pytest.raises(errors.GaveUpError) as raised:
            decorated()
        assert raised.value.result == last
        assert len(raised.value.attempts) == 5
    else:
        assert retrying() == decorated() == last
    assert ours.calls == theirs.calls == backoffs.calls
