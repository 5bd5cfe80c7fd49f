"""call_soon and its handles: order, arguments, contexts, cancelling."""

import asyncio
import contextvars
import gc
import sys
import weakref

import pytest


def test_callbacks_run_in_the_order_they_were_scheduled(loop, turn):
    order = []
    for number in range(1000):
        loop.call_soon(order.append, number)
    turn()
    assert order == list(range(1000))


@pytest.mark.parametrize("count", range(7))
def test_a_callback_gets_exactly_its_positional_arguments(loop, turn, count):
    got = []
    expected = tuple(object() for _ in range(count))
    loop.call_soon(lambda *args: got.append(args), *expected)
    turn()
    assert got == [expected]


@pytest.mark.parametrize("argument", [None, (), Ellipsis, NotImplemented, 0, ""])
def test_no_argument_value_is_taken_for_an_absent_one(loop, turn, argument):
    got = []
    loop.call_soon(lambda *args: got.append(args), argument, argument)
    turn()
    assert got == [(argument, argument)]


def test_only_context_is_a_keyword_argument(loop):
    with pytest.raises(TypeError):
        loop.call_soon(print, sep="")
    with pytest.raises(TypeError):
        loop.call_soon()


def test_what_a_callback_schedules_runs_in_the_next_turn(loop, turn):
    order = []

    def first():
        order.append("first")
        loop.call_soon(order.append, "later")

    loop.call_soon(first)
    loop.call_soon(order.append, "second")
    turn()
    assert order == ["first", "second"]
    turn()
    assert order == ["first", "second", "later"]


def test_a_cancelled_handle_never_runs(loop, turn):
    ran = []
    handles = [loop.call_soon(ran.append, number) for number in range(10)]
    for handle in handles[::2]:
        handle.cancel()
    turn()
    assert ran == [1, 3, 5, 7, 9]
    assert [handle.cancelled() for handle in handles] == [True, False] * 5


def test_a_callback_can_cancel_one_that_is_already_due(loop, turn):
    ran = []
    handles = []
    loop.call_soon(lambda: handles[0].cancel())
    handles.append(loop.call_soon(ran.append, "never"))
    turn()
    assert ran == []


def test_cancelling_twice_and_after_the_run_is_harmless(loop, turn):
    handle = loop.call_soon(int)
    turn()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()


def test_a_handle_is_an_asyncio_handle(loop):
    handle = loop.call_soon(int)
    timer = loop.call_later(60, int)
    assert isinstance(handle, asyncio.Handle)
    assert isinstance(timer, asyncio.TimerHandle)
    timer.cancel()


def test_a_handle_can_be_weakly_referenced(loop, turn):
    handle = loop.call_soon(int)
    reference = weakref.ref(handle)
    assert reference() is handle
    del handle
    turn()
    gc.collect()
    assert reference() is None


def test_a_cancelled_handle_lets_go_of_its_callback_and_arguments(loop):
    class Load:
        def __call__(self, argument):
            raise AssertionError("cancelled")

    callback, argument = Load(), Load()
    references = [weakref.ref(callback), weakref.ref(argument)]
    handle = loop.call_soon(callback, argument)
    handle.cancel()
    del callback, argument
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_a_run_handle_kept_by_the_caller_does_not_run_again(loop, turn):
    ran = []
    kept = [loop.call_soon(ran.append, number) for number in range(100)]
    turn()
    turn()
    assert ran == list(range(100))
    assert not any(handle.cancelled() for handle in kept)


def test_the_repr_names_the_callback_and_says_when_cancelled(loop):
    def the_callback():
        pass

    handle = loop.call_soon(the_callback)
    assert repr(handle).startswith("<Handle") and "the_callback" in repr(handle)
    handle.cancel()
    assert "cancelled" in repr(handle)


def test_a_callback_runs_in_the_context_of_the_call(loop, turn):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    def schedule():
        variable.set("inside")
        loop.call_soon(lambda: seen.append(variable.get()))

    contextvars.copy_context().run(schedule)
    turn()
    assert seen == ["inside"]
    assert variable.get() == "outside"


def test_an_explicit_context_is_entered_and_keeps_its_changes(loop, turn):
    variable = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()
    loop.call_soon(variable.set, "changed", context=context)
    turn()
    assert context[variable] == "changed"
    assert variable.get() == "outside"


def test_callbacks_sharing_a_context_see_each_other(loop, turn):
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.copy_context()
    for _ in range(5):
        loop.call_soon(lambda: variable.set(variable.get() + 1), context=context)
    turn()
    assert context[variable] == 5


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Handle.get_context is new in 3.12")
def test_a_handle_tells_its_context(loop):
    context = contextvars.copy_context()
    assert loop.call_soon(int, context=context).get_context() is context
    assert isinstance(loop.call_soon(int).get_context(), contextvars.Context)
    timer = loop.call_later(60, int, context=context)
    assert timer.get_context() is context
    timer.cancel()


def test_bound_methods_partials_builtins_and_classes_are_all_callable(loop, turn):
    import functools

    got = []

    class Method:
        def __call__(self, *args):
            got.append(args)

        def method(self, *args):
            got.append(args)

    loop.call_soon(Method(), 1)
    loop.call_soon(Method().method, 2)
    loop.call_soon(functools.partial(got.append, (3,)))
    loop.call_soon(got.append, (4,))
    loop.call_soon(Method, *())
    turn()
    assert got == [(1,), (2,), (3,), (4,)]


def test_a_long_chain_of_callbacks_needs_no_stack_and_no_memory(loop):
    left = 100_000

    def step():
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(step)
        else:
            loop.stop()

    loop.call_soon(step)
    loop.run_forever()
    assert left == 0


def test_many_handles_at_once_all_run(loop, turn):
    ran = []
    for number in range(50_000):
        loop.call_soon(ran.append, number)
    turn()
    assert ran == list(range(50_000))
